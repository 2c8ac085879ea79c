"""dlnds: dynamical-systems analysis of gradient flow in deep linear networks.

The folders, from the bottom; each imports only from lines above its own, in one direction::

    _kernels                   compiled formulas, of numpy and numba alone
    arrays, errors             types and checks of arguments
    schema, store              what Datasets say and how they are read back; files
    theory                     formulas of layers, singular values and ranks: plain arrays
    systems                    one dynamical system a file, all of one protocol
    sweeps                     many runs over a grid, in a folder that loses nothing
    runs                       flow and iteration, events, exponents, what is recorded
    landscape                  critical points: kind, spectrum, fiber, orbit
    continuation               solutions as a parameter varies
    saddles                    between critical points: directions, arcs, orbits, the atlas
    plot                       one picture a function; the page of an atlas
    accessor, cli              ``.dlnds`` of Datasets; the command line

Data flow one way: data (X, Y) or target Σ → system → compiled field → engine → labelled Dataset
→ picture. Engines know no networks: they ask the protocol of `systems`. A public function
validates, packs flat arrays, calls a kernel, unpacks, and returns a Dataset. Names are loaded when
they are first used.
"""

from typing import Any as _Any

import lazy_loader

from dlnds._kernels.garbage import little_garbage as _little_garbage
from dlnds._version import __version__ as __version__

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> _Any:
    """Return a public name, from the file that it is loaded from."""
    with _little_garbage():
        return _load(name)


with _little_garbage():
    from dlnds import accessor as _accessor  # noqa: F401 - registers .dlnds
