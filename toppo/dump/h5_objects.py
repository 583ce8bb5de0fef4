"""Objects of an HDF5 file, taken only if they lie in the file itself and no plugin has to decode them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
FILTERS = (1, 2, 3)
"""HDF5's own numbers of the filters that an archive uses: gzip, shuffle, Fletcher-32."""


def open_h5(path: Path) -> h5py.File:
    """The HDF5 file at a path, open for reading."""
    import h5py

    return h5py.File(path, "r")


def is_h5(path: Path) -> bool:
    """Whether a file begins as archives do: with the signature of HDF5.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def dataset(file: h5py.File, path: str) -> h5py.Dataset:
    """A dataset of a file.

    Args:
        file: the open file.
        path: name of the dataset, with the names of its groups before it.

    Raises:
        KeyError: there is no such object.
        ValueError: the object is no dataset, or a link leads to it, or its values lie in another file, or a filter of
            somebody else has to decode them.
    """
    import h5py

    names = path.split("/")
    place = file
    for depth, name in enumerate(names, start=1):
        link = place.get(name, getlink=True)
        if link is None:
            raise KeyError(f"it has no {path}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path} is a link to another place, as no archive has")
        place = place[name]
        if not isinstance(place, h5py.Dataset if depth == len(names) else h5py.Group):
            raise ValueError(f"{path} is not a dataset")
    values: h5py.Dataset = place
    plist = values.id.get_create_plist()
    if values.external is not None or values.is_virtual:
        raise ValueError(f"the values of {path} lie in another file, as those of no archive do")
    if any(plist.get_filter(i)[0] not in FILTERS for i in range(plist.get_nfilters())):
        raise ValueError(f"{path} needs a filter that no archive uses")
    return values


def text(file: h5py.File, path: str) -> str:
    """A dataset that is one text.

    Raises:
        KeyError, ValueError: see `dataset`; or it is something else.
    """
    values = dataset(file, path)
    if values.shape != ():
        raise ValueError(f"{path} is no text")
    return str(values.asstr()[()])
