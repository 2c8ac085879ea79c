"""Real data as problems: the data sets of data/, and CSV files of the same simple form."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dlnds.errors import check_choice, known_options
from dlnds.systems.linear import LinearNetwork

TRANSFORMS = ("none", "center", "standardize")


def _data_folder() -> Path:
    """Return data/ inside the installed package, or beside it in a source tree."""
    package = Path(__file__).parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


def _catalogue() -> dict[str, dict[str, Any]]:
    return tomllib.loads((_data_folder() / "datasets.toml").read_text(encoding="utf-8"))


def problem_names() -> tuple[str, ...]:
    """Return the names that `load_problem` and `read_csv` know.

    Examples
    --------
    >>> import dlnds as dl
    >>> dl.problem_names()
    ('semantic', 'digits', 'diabetes', 'linnerud')
    """
    return tuple(_catalogue())


@known_options
def load_problem(
    name: str, hidden: Sequence[int], *, whiten: bool = True, normalize: bool = True
) -> LinearNetwork:
    """Return a data set of this package as a network.

    Parameters
    ----------
    name
        ``"semantic"`` (8 items → 36 attributes), ``"digits"`` (top → bottom half of 8 × 8 images,
        rank 30), ``"diabetes"`` (4 → 6) or ``"linnerud"`` (3 → 3).
    hidden, whiten, normalize
        As for `LinearNetwork.from_data`.

    Raises
    ------
    ValueError, TypeError
        If there is no such data set, or its file is damaged, or the hidden widths are not positive.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.load_problem("semantic", hidden=(16, 16))
    >>> net.widths, net.singular_values.round(4).tolist()[:3]
    ((8, 16, 16, 36), [2.4063, 1.5815, 1.0762])
    """
    check_choice("name", name, problem_names())
    data = read_csv(name)
    return LinearNetwork.from_data(data.X, data.Y, hidden, whiten=whiten, normalize=normalize)


@known_options
def read_csv(path: str | os.PathLike[str], *, transform: str | None = None) -> xr.Dataset:
    """Return inputs and outputs from a CSV file, or of a data set of this package.

    Parameters
    ----------
    path
        Name of a file, or of a data set (`problem_names`). The first line of a file names the
        columns: inputs start with ``x:``, outputs with ``y:``, and one column ``sample`` may name
        the samples. Each further line is one sample; all values are numbers.
    transform
        ``"none"``, ``"center"`` (mean 0 over the samples) or ``"standardize"`` (mean 0, variance 1;
        constant columns stay 0). ``None`` takes what a data set says of itself, and none for a
        file.

    Returns
    -------
    xarray.Dataset
        ``X(feature_in, sample)`` and ``Y(feature_out, sample)``; origin, licence and transformation
        in the attributes.

    Raises
    ------
    FileNotFoundError
        If there is neither such a file nor such a data set.
    ValueError
        If a column has no prefix, there are no inputs or no outputs, a value is missing or no
        number, or the file of a data set does not agree with its checksum.

    Examples
    --------
    >>> import dlnds as dl
    >>> data = dl.read_csv("linnerud", transform="none")
    >>> data.X.sizes, data.feature_out.values.tolist()
    (Frozen({'feature_in': 3, 'sample': 20}), ['weight', 'waist', 'pulse'])
    """
    if transform is not None:
        check_choice("transform", transform, TRANSFORMS)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: needs the name of a file or of a data set, got {path!r}")
    catalogue = _catalogue()
    if str(path) in catalogue:
        entry = catalogue[str(path)]
        file = _data_folder() / entry["file"]
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(f"path: the file {file} does not agree with its checksum")
        about = {k: entry[k] for k in ("title", "origin", "licence", "description", "sha256")}
        transform = transform or str(entry["transform"])
    else:
        file, about = Path(path), {"title": Path(path).name}
        if not file.is_file():
            known = ", ".join(catalogue)
            raise FileNotFoundError(
                f"path: there is no file {file}, nor a data set of this name ({known})"
            )
    data = _parse(file)
    data = xr.Dataset({name: _transformed(data[name], transform or "none") for name in data})
    return data.assign_attrs({**about, "transform": transform or "none"})


def _parse(file: Path) -> xr.Dataset:
    try:
        table = pd.read_csv(file, skipinitialspace=True, header=None, dtype=str, comment="#")
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"path: {file} cannot be read as CSV: {error}") from error
    names, table = table.iloc[0].fillna("").tolist(), table.iloc[1:].reset_index(drop=True)
    _check_header(file, names)
    if not len(table):
        raise ValueError(f"path: {file} has no samples")
    samples = table.index + 1
    if "sample" in names:
        samples = pd.Index(table[names.index("sample")])
    parts = {}
    for prefix, variable, dim in (("x:", "X", "feature_in"), ("y:", "Y", "feature_out")):
        places = [i for i, name in enumerate(names) if name.startswith(prefix)]
        values = table[places].apply(pd.to_numeric, errors="coerce").to_numpy(float)
        for row, column in np.argwhere(~np.isfinite(values))[:1]:
            got = table[places[column]][row]
            raise ValueError(
                f"path: {file} needs numbers, but column {names[places[column]]!r} of sample "
                f"{row + 1} {'is empty' if pd.isna(got) else f'has {got!r}'}"
            )
        labels = [names[i].removeprefix(prefix) for i in places]
        parts[variable] = xr.DataArray(
            values.T, dims=(dim, "sample"), coords={dim: labels, "sample": samples.to_numpy()}
        )
    return xr.Dataset(parts)


def _check_header(file: Path, names: list[str]) -> None:
    for name in names:
        if name != "sample" and not name.startswith(("x:", "y:")):
            raise ValueError(f"path: column {name!r} of {file} starts neither with 'x:' nor 'y:'")
        if ";" in name:
            raise ValueError(f"path: {file} needs commas between its columns, got {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"path: {file} has the column {name!r} twice")
    for prefix in ("x:", "y:"):
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"path: {file} has no column that starts with {prefix!r}")


def _transformed(data: xr.DataArray, transform: str) -> xr.DataArray:
    if transform == "none":
        return data
    centred = data - data.mean("sample")
    rounding = 8.0 * np.finfo(float).eps * abs(data).max("sample")
    centred = centred.where(abs(centred).max("sample") > rounding, 0.0)  # constant columns
    if transform == "center":
        return centred
    deviation = centred.std("sample")
    return centred / deviation.where(deviation > 0.0, 1.0)
