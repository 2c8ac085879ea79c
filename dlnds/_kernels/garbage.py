"""How often Python looks for garbage."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def little_garbage() -> Iterator[None]:
    """Look for garbage more seldom, for what makes much to look at and nothing to find.

    The compiler spends 15 % of its time in this, imports as much.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 100, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
