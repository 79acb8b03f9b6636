# SPDX-License-Identifier: Apache-2.0
# Shared by the makers of golden files: where the files go, how HDF5 and JSON are written, and how the
# script's name and the library versions are recorded in each of them.

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any, Mapping, Sequence

import h5py
import numpy as np

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"


def versions(packages: Sequence[str]) -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in packages}
    found["python"] = platform.python_version()
    return found


def little_endian(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return array.astype("<i4")
    return array.astype("<f4" if array.dtype.itemsize <= 4 else "<f8")


def create_without_times(path: Path) -> h5py.h5f.FileID:
    """HDF5 1.10 format; no times in object headers, so that making a file again gives the same bytes."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, creation, access)


def make_groups(file: h5py.File, key: str) -> None:
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    parts = key.split("/")[:-1]
    for depth in range(len(parts)):
        group = "/".join(parts[: depth + 1])
        if group not in file:
            h5py.h5g.create(file.id, group.encode(), gcpl=creation)


def write_hdf5(
    name: str,
    maker: str,
    library_versions: Mapping[str, str],
    datasets: Mapping[str, Any],
    attributes: Mapping[str, Any],
) -> None:
    """Contiguous datasets; integers become i32, floats stay f32 or f64; attributes are strings or numbers."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    path = GOLDEN / name
    with h5py.File(create_without_times(path)) as file:
        file.attrs["maker"] = maker
        file.attrs["versions"] = json.dumps(dict(library_versions), sort_keys=True)
        for key, value in attributes.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, (dict, list)) else value
        for key in sorted(datasets):
            make_groups(file, key)
            file.create_dataset(key, data=little_endian(datasets[key]))
    print(f"{path.name}: {path.stat().st_size} bytes, {len(datasets)} datasets")


def write_json(name: str, maker: str, library_versions: Mapping[str, str], content: Mapping[str, Any]) -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    path = GOLDEN / name
    document = {"maker": maker, "versions": dict(library_versions), **content}
    lines = [f"{json.dumps(key)}: {dump_member(value)}" for key, value in document.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def dump_member(value: Any) -> str:
    """One line per element for lists of objects and lists of lists, one line otherwise."""
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        return "[\n" + ",\n".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"
    return json.dumps(value, allow_nan=False)
