"""Problems that continuation packages use as demos, with their answers from closed forms."""

from .check import check, expected_of, stretch_of
from .flows import PROBLEMS as FLOWS
from .scalar import PROBLEMS as SCALAR
from .systems import PROBLEMS as SYSTEMS
from .variants import residual_of, run, variant_of

PROBLEMS = (*SCALAR, *FLOWS, *SYSTEMS)
