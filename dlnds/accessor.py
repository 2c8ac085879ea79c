"""The ``.dlnds`` accessor of Datasets and DataTrees."""

import os
from typing import Any

import xarray as xr

from dlnds import schema
from dlnds.errors import nearest


@xr.register_dataset_accessor("dlnds")  # type: ignore[no-untyped-call]
@xr.register_datatree_accessor("dlnds")  # type: ignore[no-untyped-call]
class DlndsAccessor:
    """What this package does with its Datasets and trees, as methods of these.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=0.1, rng=0), t_span=(0, 1), t_eval=[0, 1])
    >>> run.dlnds.validate()
    >>> run.dlnds.weights(layer=2).shape
    (2, 2, 3)
    """

    def __init__(self, data: xr.Dataset | xr.DataTree):
        self._data = data

    def validate(self) -> None:
        """Check the schema; see `dlnds.schema.validate`."""
        schema.validate(self._data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file; see `dlnds.save`."""
        from dlnds import store

        store.save(self._data, path)

    def weights(self, layer: int) -> xr.DataArray:
        """Return one layer's weight matrices; see `dlnds.weights`."""
        return schema.weights(self._data, layer)

    def decode(self, name: str) -> xr.DataArray:
        """Return a flag variable as words; see `dlnds.schema.decode`."""
        if not isinstance(name, str) or name not in self._data:
            raise ValueError(f"name: there is no variable {name!r}{nearest(name, self._data)}")
        return schema.decode(self._data[name])  # type: ignore[arg-type]

    def plot(self, **options: Any) -> Any:
        """Draw the picture that fits the schema; see `dlnds.plot`."""
        from dlnds import plot

        return plot.by_schema(self._data, **options)
