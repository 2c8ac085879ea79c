"""Real data as problems: the data sets of data/, and CSV files of the same simple form."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dlnds.arrays import Integers
from dlnds.errors import check_choice, check_flag, known_options
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.tables import SEPARATORS, read_table

TRANSFORMS = ("none", "center", "standardize")
#: What stands in cells without a value, in small letters.
_MISSING = ("", "na", "nan", "n/a", "#n/a", "#na", "<na>", "null", "none")
_MARKS = "missing are cells that are empty, or NA, N/A, #N/A, NaN, null or none"
#: A number as people write it who set commas between thousands.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


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
def read_csv(
    path: str | os.PathLike[str],
    *,
    transform: str | None = None,
    separator: str = "auto",
    drop_missing: bool = False,
) -> xr.Dataset:
    """Return inputs and outputs from a CSV file, or of a data set of this package.

    Parameters
    ----------
    path
        Name of a file, or of a data set (`problem_names`). The first line of a file names the
        columns: inputs start with ``x:``, outputs with ``y:``, and one column ``sample`` may name
        the samples. Each further line is one sample; all values are numbers. Whole lines that
        begin with ``#`` are comments, within a line it is text; a name that begins a line with
        ``#`` needs quotes. Names and numbers may have quotes, separators may end each line, and
        lines end as they do on any system. The text is UTF-8, or UTF-16 with its mark.
    transform
        ``"none"``, ``"center"`` (mean 0 over the samples) or ``"standardize"`` (mean 0, variance 1;
        constant columns stay 0). ``None`` takes what a data set says of itself, and none for a
        file.
    separator
        ``","``, ``";"`` or ``"tab"`` between columns; ``"auto"`` takes the one that makes names of
        the first line, or that of a line ``sep=;`` before it. Numbers may have decimal commas; in
        quotes, where commas stand between columns.
    drop_missing
        Leave out samples in which a value is missing, in place of an error: where a cell is empty,
        or is NA, N/A, #N/A, NaN, null or none, in letters of any size.

    Returns
    -------
    xarray.Dataset
        ``X(feature_in, sample)`` and ``Y(feature_out, sample)``; origin, licence and transformation
        in the attributes, and of a file ``dropped_samples``, how many were left out.

    Raises
    ------
    FileNotFoundError
        If there is neither such a file nor such a data set.
    ValueError
        If a column has no prefix, there are no inputs or no outputs, a value is missing or no
        number, decimal commas and points are mixed, commas may be decimal ones or stand between
        thousands, the text has another encoding, or the file of a data set does not agree with
        its checksum.

    Examples
    --------
    >>> import dlnds as dl
    >>> data = dl.read_csv("linnerud", transform="none")
    >>> data.X.sizes, data.feature_out.values.tolist()
    (Frozen({'feature_in': 3, 'sample': 20}), ['weight', 'waist', 'pulse'])
    """
    if transform is not None:
        check_choice("transform", transform, TRANSFORMS)
    check_choice("separator", separator, ("auto", *SEPARATORS))
    drop_missing = check_flag("drop_missing", drop_missing)
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
    data = _parse(file, separator, drop_missing)
    about |= data.attrs
    data = xr.Dataset({name: _transformed(data[name], transform or "none") for name in data})
    return data.assign_attrs({**about, "transform": transform or "none"})


def _parse(file: Path, separator: str, drop_missing: bool) -> xr.Dataset:
    mark, names, rows = read_table(file, separator)
    _check_header(file, names)
    places = [i for i, name in enumerate(names) if name != "sample"]
    table = pd.DataFrame([*rows], columns=range(len(names)), dtype=str)
    missing = table[places].map(str.casefold).isin(_MISSING)
    lacking = np.flatnonzero(missing.any(axis=1))
    if len(lacking) and (not drop_missing or len(lacking) == len(table)):
        raise ValueError(_missing(file, names, missing, lacking))
    if not len(table):
        raise ValueError(f"path: {file} has no samples")
    table = table[~missing.any(axis=1)]
    samples = table.index + 1
    if "sample" in names:
        samples = pd.Index(table[names.index("sample")])
    values = _numbers(file, names, table[places], mark)
    parts = {}
    for prefix, variable, dim in (("x:", "X", "feature_in"), ("y:", "Y", "feature_out")):
        own = [i for i in places if names[i].startswith(prefix)]
        labels = [names[i].removeprefix(prefix) for i in own]
        parts[variable] = xr.DataArray(
            values[own].to_numpy(float).T,
            dims=(dim, "sample"),
            coords={dim: labels, "sample": samples.to_numpy()},
        )
    dropped = {"dropped_samples": len(lacking)} if drop_missing else {}
    return xr.Dataset(parts, attrs=dropped)


def _missing(file: Path, names: list[str], missing: pd.DataFrame, lacking: Integers) -> str:
    """Return what is said of samples that lack values."""
    row, place = np.argwhere(missing.to_numpy())[0]
    columns = [name for name in names if name != "sample"]
    column = columns[place]
    first = f"path: {file} needs numbers, but column {column!r} of sample {row + 1} has none; "
    if len(lacking) == len(missing):
        counts = missing.to_numpy().sum(axis=0)
        first += (
            f"values are missing in all {len(missing)} samples, in {counts.max()} of them that of "
            f"column {columns[counts.argmax()]!r}, so that none would be left"
        )
    else:
        listed = ", ".join(str(k + 1) for k in lacking[:10]) + (", …" if len(lacking) > 10 else "")
        first += (
            f"values are missing in {len(lacking)} of {len(missing)} samples ({listed}), which "
            "drop_missing=True (--drop-missing) leaves out"
        )
    return f"{first}; {_MARKS}"


def _numbers(file: Path, names: list[str], table: pd.DataFrame, mark: str) -> pd.DataFrame:
    """Return a table of texts as numbers, with decimal points or commas."""
    texts = table.to_numpy(str)
    values, wrong, what = table, np.zeros(texts.shape, bool), "needs numbers"
    commas = np.char.find(texts, ",") >= 0
    if commas.any():
        what = "has decimal commas"
        wrong = np.char.find(texts, ".") >= 0
        if mark == "," and all(_THOUSANDS.fullmatch(text) for text in texts[commas]):
            what = "needs numbers without commas between thousands (or is it a decimal one?)"
            wrong = commas
        values = pd.DataFrame(np.char.replace(texts, ",", "."), table.index, table.columns)
    if not wrong.any():
        values = values.apply(pd.to_numeric, errors="coerce")
        wrong, what = ~np.isfinite(values.to_numpy(float)), "needs numbers"
    for row, column in np.argwhere(wrong)[:1]:
        text = str(texts[row, column])
        known = "" if any(letter.isdigit() for letter in text) else f"; {_MARKS}"
        raise ValueError(
            f"path: {file} {what}, but column {names[table.columns[column]]!r} of sample "
            f"{table.index[row] + 1} has {text!r}{known}"
        )
    return values


def _check_header(file: Path, names: list[str]) -> None:
    needed = "its first line has to name inputs 'x:NAME' and outputs 'y:NAME'"
    for name in names:
        if name != "sample" and not name.startswith(("x:", "y:")):
            raise ValueError(
                f"path: column {name!r} of {file} starts neither with 'x:' nor 'y:'; {needed}"
            )
        if len(names) == 1 and any(mark in name for mark in SEPARATORS.values()):
            raise ValueError(
                f"path: {file} has no such separator between its columns, got {name!r}"
            )
        if len(names) == 1:
            raise ValueError(
                f"path: {file} has one column, {name!r}; {needed}, with commas, semicolons or tabs "
                "between them"
            )
        if names.count(name) > 1:
            raise ValueError(f"path: {file} has the column {name!r} twice")
    for prefix in ("x:", "y:"):
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"path: {file} has no column that starts with {prefix!r}; {needed}")


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
