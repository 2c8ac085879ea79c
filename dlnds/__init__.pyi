from . import events as events
from . import losses as losses
from . import plot as plot
from . import schema as schema
from .arcs import activation_arcs as activation_arcs
from .atlas import build_atlas as build_atlas
from .critical import critical_points as critical_points
from .errors import ConvergenceError as ConvergenceError
from .escape import saddle_visits as saddle_visits
from .exact import exact_flow as exact_flow
from .integrate import as_run as as_run
from .integrate import flow as flow
from .integrate import iterate as iterate
from .linearization import canonical_spectrum as canonical_spectrum
from .linearization import linearize as linearize
from .moments import check_assumptions as check_assumptions
from .problems import load_problem as load_problem
from .problems import problem_names as problem_names
from .problems import read_csv as read_csv
from .schema import weights as weights
from .store import load as load
from .store import save as save
from .systems.descent import GradientDescent as GradientDescent
from .systems.linear import LinearNetwork as LinearNetwork
from .systems.loss import LossNetwork as LossNetwork
from .systems.system import System as System

__version__: str
