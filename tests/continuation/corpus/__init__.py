"""Problems that continuation packages use as demos, with their answers from closed forms."""

from .answers import wrong_answers
from .check import check, check_diagram, expected_of, stretch_of
from .flows import PROBLEMS as FLOWS
from .maps import PROBLEMS as MAPS
from .scalar import PROBLEMS as SCALAR
from .systems import PROBLEMS as SYSTEMS
from .variants import diagram_variant_of, residual_of, run, run_diagram, variant_of

PROBLEMS = (*SCALAR, *FLOWS, *SYSTEMS, *MAPS)

__all__ = [
    "PROBLEMS",
    "check",
    "check_diagram",
    "diagram_variant_of",
    "expected_of",
    "residual_of",
    "run",
    "run_diagram",
    "stretch_of",
    "variant_of",
    "wrong_answers",
]
