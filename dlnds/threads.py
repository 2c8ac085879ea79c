"""With how many threads BLAS works while an engine runs.

The second of two threads waits for the processor where other programs are at work, and the first
waits for the second: then a product takes as long as the system lets another program run, some 20
ms, be it a thousand times shorter on one thread. Products come in loops, so engines say once, where
they begin, how large theirs are.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

#: Multiplications of matrix entries up to which one thread is taken. So many take one thread about
#: 20 ms: a second one saves less than it may have to be waited for. Products of two square matrices
#: of 96, 256, 512, 1024 rows took two threads 740, 37, 2.7, 0.7 times as long beside other programs
#: (two cores), and 0.5 to 1 times on a quiet machine.
PAYS = 400_000_000


class _OneThread:
    """Keeps BLAS to one thread while anyone needs it; the number of its threads is the process's.

    So what the first has found the last has to give back, from whatever thread. The limits of
    threadpoolctl are those of the thread that sets them, which alone can undo them.
    """

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self._users = self._known = 0
        self._found: list[tuple[Any, int]] = []
        self._libraries: list[Any] = []
        self.controller: Any = None

    def __enter__(self) -> Self:
        with self._counting:
            new = len(sys.modules) != self._known  # to look for libraries takes milliseconds
            if new:
                from threadpoolctl import ThreadpoolController

                self.controller, self._known = ThreadpoolController(), len(sys.modules)
                self._libraries = self.controller.select(user_api="blas").lib_controllers
            if new or self._users == 0:
                for library in self._libraries:
                    self._found.append((library, library.num_threads))
                    _set(library, 1)
            self._users += 1
        return self

    def __exit__(self, *error: object) -> None:
        with self._counting:
            self._users -= 1
            while self._found and self._users == 0:
                _set(*self._found.pop())


def _set(library: Any, number: int) -> None:
    # The public method of threadpoolctl 3.8 does nothing while another thread has a limit.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


_BLAS = _OneThread()


def threads_for(multiplications: float) -> AbstractContextManager[Any]:
    """Return the context of loops whose products take so many multiplications at most.

    BLAS is kept to one thread where another does not pay, and to the caller's number otherwise.
    That number is there again when the last of all such contexts ends, in whatever thread.
    """
    return _BLAS if multiplications < PAYS else nullcontext()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep BLAS and OpenMP, on whose threads last digits depend, to one."""
    with _BLAS as blas, blas.controller.limit(limits=1, user_api="openmp"):
        yield
