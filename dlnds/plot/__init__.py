"""Pictures of Datasets. Every function draws into ``ax``, or into new axes, and returns them."""

from dlnds.plot.bifurcations import branches as branches
from dlnds.plot.decay import decay_diagram as decay_diagram
from dlnds.plot.diagrams import arcs as arcs
from dlnds.plot.diagrams import heatmap as heatmap
from dlnds.plot.landscape import graph as graph
from dlnds.plot.landscape import levels as levels
from dlnds.plot.landscape import pairs as pairs
from dlnds.plot.pictures import by_schema as by_schema
from dlnds.plot.pictures import escape_chain as escape_chain
from dlnds.plot.pictures import lyapunov as lyapunov
from dlnds.plot.pictures import spectrum as spectrum
from dlnds.plot.pictures import visits as visits
from dlnds.plot.runs import alignment as alignment
from dlnds.plot.runs import convergence as convergence
from dlnds.plot.runs import loss as loss
from dlnds.plot.runs import ntk as ntk
from dlnds.plot.runs import sharpness as sharpness
from dlnds.plot.runs import singular_values as singular_values
