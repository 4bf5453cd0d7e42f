"""Files of named arrays in the safetensors format, read by numpy alone and written to the byte.

Eight bytes say how long the JSON header is; it names each array's type, shape and place in what follows. Nothing in
such a file is ever executed. What a header says is checked against the file before anything is made of it.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from upstack.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_HEADER = 100_000_000  # bytes, as the format has it
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U32": "<u4", "U8": "|u1"}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


class _Place(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def to_bytes(tensors: Mapping[str, NDArray[Any]], metadata: str) -> bytes:
    """Write arrays and one text: the same ones give the same bytes."""
    header: dict[str, Any] = {"__metadata__": {"upstack": metadata}}
    at = 0
    ordered = [(name, tensors[name].astype(tensors[name].dtype.newbyteorder("<"))) for name in sorted(tensors)]
    for name, array in ordered:
        header[name] = {"dtype": _NAMES[array.dtype.str], "shape": array.shape, "data_offsets": (at, at + array.nbytes)}
        at += array.nbytes
    head = msgspec.json.encode(header)
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *(array.tobytes() for _, array in ordered)])


def from_bytes(data: bytes, where: str) -> tuple[dict[str, NDArray[Any]], str]:
    """Read what `to_bytes` wrote, or others did. ConfigError, which says `where` it stood, where it is no such file."""
    import numpy as np  # noqa: PLC0415 - an extra's

    try:
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or size > min(len(data) - 8, _MOST_HEADER):
            raise ValueError("its header is longer than the file")
        header = msgspec.json.decode(data[8 : 8 + size], type=dict[str, msgspec.Raw])
        beside = header.pop("__metadata__", msgspec.Raw(b"{}"))
        metadata = msgspec.json.decode(beside, type=dict[str, str]).get("upstack", "")
        arrays = memoryview(data)[8 + size :]
        places = {name: msgspec.json.decode(raw, type=_Place) for name, raw in header.items()}
        return {name: _array(np, arrays, place) for name, place in places.items()}, metadata
    except (ValueError, KeyError, RecursionError) as error:  # those of msgspec are ValueErrors
        raise ConfigError(f"{where} is no safetensors file: {error}") from None


def _array(np: Any, data: memoryview, place: _Place) -> NDArray[np.generic]:
    first, last = place.data_offsets
    dtype = np.dtype(_TYPES[place.dtype])
    count = 1
    for size in place.shape:
        count *= size
    fits = 0 <= first <= last <= len(data) and last - first == count * dtype.itemsize
    if not fits or min(place.shape, default=0) < 0:
        raise ValueError("an array is not where it should be")
    array: NDArray[np.generic] = np.frombuffer(data[first:last], dtype).reshape(place.shape)
    return array
