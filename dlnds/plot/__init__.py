"""Pictures of Datasets. Every function draws into ``ax``, or into new axes, and returns them."""

from dlnds.plot.diagrams import branches as branches
from dlnds.plot.landscape import graph as graph
from dlnds.plot.pictures import arcs as arcs
from dlnds.plot.pictures import by_schema as by_schema
from dlnds.plot.pictures import levels as levels
from dlnds.plot.pictures import loss as loss
from dlnds.plot.pictures import singular_values as singular_values
from dlnds.plot.pictures import spectrum as spectrum
