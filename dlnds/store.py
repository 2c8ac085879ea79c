"""Datasets and trees in netCDF-4 files: written atomically, verified when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

DIGEST = "content_digest"
#: Behind the end of the HDF5 data, which readers ignore, stand this mark and the bytes' SHA-256.
SEAL = b"\ndlnds sha256 "


def save(data: xr.Dataset | xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a Dataset or DataTree to one netCDF-4 file, whole or not at all.

    The file is written under a temporary name in the same folder, read back, flushed to the disk
    and renamed.
    Arrays are compressed and carry HDF5 checksums; the root carries a digest of the whole content,
    and the file ends with a checksum of its bytes.

    Parameters
    ----------
    data
        What to store. It is not changed.
    path
        Name of the file; an existing file is replaced, its folder must exist.

    Raises
    ------
    TypeError
        If ``data`` is neither a Dataset nor a DataTree, or holds objects that netCDF cannot.
    ValueError
        If the folder does not exist or ``path`` is a folder.

    Examples
    --------
    >>> import tempfile, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> points = dl.critical_points(net)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dl.save(points, f"{folder}/points.nc")
    ...     dl.load(f"{folder}/points.nc").identical(points)
    True
    """
    if not isinstance(data, xr.Dataset | xr.DataTree):
        raise TypeError(f"data: needs a Dataset or a DataTree, got {type(data).__name__}")
    tree = data if isinstance(data, xr.DataTree) else xr.DataTree(data)
    with replacing(path) as temporary:
        for node in tree.subtree:
            check_attributes(node.to_dataset(inherit=False))
        marked = tree.copy()
        marked.attrs = {**tree.attrs, DIGEST: content_digest(tree)}
        try:
            marked.to_netcdf(temporary, engine="h5netcdf", encoding=_encoding(marked))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(f"data: cannot be stored as netCDF: {error}") from error
        stored, digest = _read(temporary)
        if digest != marked.attrs[DIGEST]:
            where = "".join(f", in {name}" for name in _changed(marked, stored)[:1])
            raise TypeError(f"data: holds what netCDF does not give back unchanged{where}")
        _seal(temporary)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, flush_folder: bool = True) -> Iterator[str]:
    """Yield a temporary name in the folder of a file, which it replaces when all went well.

    Who writes many files may flush their folder once, after the last of them.
    """
    path = _as_path(path)
    if path.is_dir():
        raise ValueError(f"path: {path} is a folder, needs the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"path: the folder {path.parent} does not exist")
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp"))
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        if flush_folder:
            flush(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def check_attributes(dataset: xr.Dataset) -> None:
    """Refuse attributes and variables that netCDF has no types for, by their names."""
    for name, variable in dataset.variables.items():
        if not isinstance(variable.dtype, np.dtype):
            raise TypeError(f"data: cannot store {name!r} of the dtype {variable.dtype}")
    holders = [("", dataset.attrs)]
    holders += [(f" of {name!r}", variable.attrs) for name, variable in dataset.variables.items()]
    for owner, attrs in holders:
        for key, value in attrs.items():
            if not isinstance(key, str) or not _is_storable(value):
                said = f"data: cannot store the attribute {key!r}{owner} with value {value!r}"
                typed = ", whose type is not known; numpy.array([], dtype) has one"
                empty = isinstance(value, list | tuple) and not value
                raise TypeError(said + typed if empty else said)


def _is_storable(value: Any) -> bool:
    """Tell whether an attribute is a text, a number, or a sequence of one of these."""
    if isinstance(value, list | tuple):
        texts = [isinstance(item, str) for item in value]
        if any(texts):
            return all(texts)
        if not value or any(np.ndim(item) for item in value):
            return False
    array = np.asarray(value)
    stored = array.dtype.kind in "iuf" or (array.dtype.kind == "U" and array.size > 0)
    return array.ndim <= 1 and stored


def load(path: str | os.PathLike[str]) -> Any:
    """Read a file written by `save` into memory, and verify it.

    Parameters
    ----------
    path
        Name of the file.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        What was saved: a tree if the file has groups.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or was not written by this package.

    Examples
    --------
    >>> import tempfile, dlnds as dl
    >>> points = dl.critical_points(dl.LinearNetwork(widths=(2, 2, 2), target=[[2.0, 0], [0, 1.0]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dl.save(points, f"{folder}/points.nc")
    ...     again = dl.load(f"{folder}/points.nc")
    >>> again.identical(points)
    True
    """
    path = _as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    if _seal_is_broken(path):
        raise ValueError(
            f"path: the bytes of {path} do not agree with their checksum, it is damaged"
        )
    try:
        tree, digest = _read(path)
    except Exception as error:  # whatever the HDF5 library makes of damaged bytes
        raise ValueError(f"path: {path} is damaged or no netCDF-4 file ({error})") from error
    expected = tree.attrs.pop(DIGEST, None)
    if expected is None:
        raise ValueError(f"path: {path} was not written by dlnds.save, it carries no digest")
    if digest != expected:
        raise ValueError(
            f"path: the content of {path} does not agree with its digest, it is damaged"
        )
    return tree if tree.children else tree.to_dataset()


def _changed(tree: xr.DataTree, stored: xr.DataTree) -> list[str]:
    """Return the names of attributes, then of variables, that were not stored as they are."""
    nodes = {node.path: node.to_dataset(inherit=False) for node in stored.subtree}
    attributes, variables = [], []
    for node in tree.subtree:
        one = node.to_dataset(inherit=False)
        other = nodes.get(node.path, xr.Dataset())
        shared = [name for name in one.variables if name in other.variables]
        owners = [(f" of {name!r}", one[name].attrs, other[name].attrs) for name in shared]
        for owner, before, after in [("", one.attrs, other.attrs), *owners]:
            lost = [k for k in before if k not in after or _differ(before[k], after[k])]
            attributes += [f"the attribute {key!r}{owner}" for key in lost]
        variables += [repr(name) for name in one.variables if name not in shared]
        variables += [repr(n) for n in shared if _differ(one[n].values, other[n].values)]
    return attributes + variables


def _differ(one: Any, other: Any) -> bool:
    """Tell whether values are not the same after a file turned their types."""
    return _canonical(one) != _canonical(other)


def _seal(path: str) -> None:
    """Append the checksum of a file to it."""
    with open(path, "r+b") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(SEAL + checksum.encode())


def _seal_is_broken(path: Path) -> bool:
    """Tell whether a file carries a checksum that is not its own; others copy files without it."""
    length = len(SEAL) + 64
    with open(path, "rb") as file:
        end = max(0, file.seek(0, os.SEEK_END) - length)
        file.seek(end)
        seal = file.read()
        if not seal.startswith(SEAL):
            return False
        file.seek(0)
        total = hashlib.sha256()
        while end > 0 and (block := file.read(min(end, 2**20))):
            total.update(block)
            end -= len(block)
    return seal[len(SEAL) :] != total.hexdigest().encode()


def _read(path: str | os.PathLike[str]) -> tuple[xr.DataTree, str]:
    """Return the content of a file, in memory, and its digest."""
    with h5py.File(path, "r"):  # refuses damaged files more quietly than what is built on it
        pass
    with xr.open_datatree(path, engine="h5netcdf") as stored:
        tree = stored.load().map_over_datasets(_as_written)
    return tree, content_digest(tree)


def _as_written(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset without traces of the file: no encoding, fixed-width text."""
    dataset = dataset.copy(deep=True).drop_encoding()
    texts = {n: v.astype(str) for n, v in dataset.variables.items() if v.dtype.kind in "OT"}
    labels = {n: texts.pop(n) for n in list(texts) if n in dataset.coords}
    return dataset.assign(texts).assign_coords(labels)


def content_digest(data: xr.Dataset | xr.DataTree) -> str:
    """Return a SHA-256 of names, dims, values and attributes, independent of their order."""
    tree = data if isinstance(data, xr.DataTree) else xr.DataTree(data)
    total = hashlib.sha256()
    for node in sorted(tree.subtree, key=lambda n: n.path):
        dataset = node.to_dataset(inherit=False)
        attrs = {key: value for key, value in dataset.attrs.items() if key != DIGEST}
        total.update(_canonical([node.path, sorted(map(str, dataset.coords)), attrs]))
        for name in sorted(dataset.variables, key=str):
            variable = dataset.variables[name]
            total.update(_canonical([name, variable.dims, variable.shape, variable.attrs]))
            if variable.dtype.kind in "OUST":
                total.update(_canonical(variable.values.astype(object).tolist()))
            elif variable.size:
                little = variable.dtype.newbyteorder("<")
                total.update(little.str.encode())
                total.update(np.ascontiguousarray(variable.values, little).tobytes())
    return total.hexdigest()


def _canonical(value: Any) -> bytes:
    """Encode names and attributes alike before and after a file turned their types."""

    def plain(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            return item.tolist()
        if isinstance(item, np.generic):
            return item.item()
        raise TypeError(f"data: cannot store {item!r} of type {type(item).__name__}")

    return json.dumps(value, default=plain, sort_keys=True).encode()


def _encoding(tree: xr.DataTree) -> dict[str, dict[str, dict[str, Any]]]:
    options = {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}
    return {
        node.path: {
            str(name): dict(options)
            for name, variable in node.to_dataset(inherit=False).variables.items()
            if variable.ndim and variable.size and variable.dtype.kind in "biufc"
        }
        for node in tree.subtree
    }


def _as_path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise TypeError(f"path: needs the name of a file, got {path!r}")
    return Path(path)


def flush(path: str | os.PathLike[str]) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
