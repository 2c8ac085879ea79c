"""Types that all folders share: arrays, and what compiled functions take."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
#: Sizes and numbers of a problem, as kernels take them.
Params = tuple[Integers, Array]
#: A function that Numba compiles.
Kernel = Callable[..., None]
