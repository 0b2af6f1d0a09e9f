"""The wire: msgpack with numpy arrays as openpi's client packs them; what comes in is trusted in nothing.

It needs numpy and msgpack alone. Source of the layout: ``openpi_client.msgpack_numpy``.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError

PROTOCOL = "dfplanner/1"
"""What the server's metadata says it speaks."""
DEFAULT_PORT = 8000
MAX_BYTES = 1 << 20
"""Bytes of a request, unless the server is told otherwise."""
CLOSE_GOING_AWAY, CLOSE_ERROR, CLOSE_BUSY = 1001, 1011, 1013
"""Codes the server closes with: it shuts down; after an error's text; after a busy answer's text."""
BUSY = "busy: "
"""How the text of a busy answer begins."""

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"


class WireError(DFPlannerError):
    """Bytes that are no message of ours."""


def packb(obj: Any) -> bytes:
    """A message as bytes; arrays and numpy's scalars may be anywhere in it. Raises WireError on what has no form."""
    try:
        packed = msgpack.packb(obj, default=_pack)
    except WireError:
        raise
    except (TypeError, ValueError, OverflowError) as e:
        raise WireError(f"the message cannot be packed ({e}); use numbers, texts, lists, maps and arrays") from e
    assert packed is not None
    return packed


def unpackb(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = 8, max_items: int = 10_000) -> Any:
    """The inverse of ``packb``, for at most ``max_bytes`` bytes, ``max_depth`` containers nested, ``max_items`` values.

    Arrays have a dtype of the bool, int or float kinds, and are read-only. Raises WireError on everything else: other
    dtypes, sizes that do not agree, extension types, keys given twice, truncated bytes, bytes after the message.
    """
    if len(data) > max_bytes:
        raise WireError(f"the frame has {len(data)} bytes; expected at most {max_bytes}")
    reader = _Reader(data, max_depth, max_items)
    try:
        value = reader.value(0)
    except WireError:
        raise
    except msgpack.OutOfData as e:
        raise WireError(f"the frame of {len(data)} bytes ends in the middle of a message; send it whole") from e
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError) as e:  # of them the bytes of no UTF-8
        raise WireError(
            f"the frame is not a msgpack message ({str(e) or type(e).__name__}); see docs/serving.md"
        ) from e
    if reader.position < len(data):
        raise WireError(f"{len(data) - reader.position} bytes follow the message; send one message in a frame")
    return value


def _pack(obj: Any) -> Any:
    if isinstance(obj, (np.ndarray, np.generic)) and not _DTYPE.fullmatch(obj.dtype.str):
        raise WireError(f"an array of dtype {obj.dtype} has no form on the wire; convert it to bool, int or float")
    if isinstance(obj, np.ndarray):
        return {_ARRAY: True, b"data": obj.tobytes(), b"dtype": obj.dtype.str, b"shape": obj.shape}
    if isinstance(obj, np.generic):
        return {_SCALAR: True, b"data": obj.item(), b"dtype": obj.dtype.str}
    raise WireError(f"a {type(obj).__name__} has no form on the wire; use numbers, texts, lists, maps and arrays")


class _Reader:
    """Reads a message container by container, so that what is too deep or too large is refused before it is built."""

    def __init__(self, data: bytes, max_depth: int, max_items: int) -> None:
        self.data, self.max_depth, self.max_items = data, max_depth, max_items
        self.unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
        self.unpacker.feed(data)
        self.items = 0

    @property
    def position(self) -> int:
        return self.unpacker.tell()

    def value(self, depth: int) -> Any:
        at = self.position
        if at >= len(self.data):
            raise msgpack.OutOfData
        kind = self.data[at]
        if 0x80 <= kind <= 0x8F or kind in (0xDE, 0xDF):
            return self.map(depth)
        if 0x90 <= kind <= 0x9F or kind in (0xDC, 0xDD):
            n = self.unpacker.read_array_header()
            self.count(n, depth)
            return [self.value(depth + 1) for _ in range(n)]
        if 0xC7 <= kind <= 0xC9 or 0xD4 <= kind <= 0xD8:
            raise WireError("the message holds a msgpack extension type; use numbers, texts, lists, maps and arrays")
        return self.unpacker.unpack()

    def map(self, depth: int) -> Any:
        n = self.unpacker.read_map_header()
        self.count(n, depth)
        found: dict[Any, Any] = {}
        for _ in range(n):
            key = self.value(depth + 1)
            if not isinstance(key, (str, bytes)):
                raise WireError(f"a map's key is a {type(key).__name__}; expected a text")
            if key in found:
                raise WireError(f"a map has the key {_brief(key)} twice; give it once")
            found[key] = self.value(depth + 1)
        if _ARRAY in found:
            return _array(found)
        return _scalar(found) if _SCALAR in found else found

    def count(self, n: int, depth: int) -> None:
        self.items += n
        if self.items > self.max_items:
            raise WireError(f"the message holds more than {self.max_items} values; put numbers into arrays")
        if depth >= self.max_depth:
            raise WireError(f"the message nests containers more than {self.max_depth} deep; make it flatter")


def _array(m: dict[Any, Any]) -> NDArray[Any]:
    dtype, shape, data = _dtype(m, {_ARRAY, b"data", b"dtype", b"shape"}), m[b"shape"], m[b"data"]
    if not isinstance(shape, list) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
        raise WireError(f"an array's shape is {_brief(shape)}; expected a list of at most 8 sizes of at least 0")
    if not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):
        given = f"{len(data)} bytes" if isinstance(data, bytes) else f"a {type(data).__name__}"
        raise WireError(
            f"an array of shape {_brief(tuple(shape))} and dtype {dtype.str} comes with {given} of data; expected "
            f"{_brief(math.prod(shape) * dtype.itemsize)} bytes"
        )
    if dtype.kind == "b":  # other bytes than 0 and 1 would be neither True nor False
        return np.not_equal(np.frombuffer(data, np.uint8).reshape(shape), 0, out=np.empty(shape, bool))
    return np.ndarray(tuple(shape), dtype, buffer=data)


def _scalar(m: dict[Any, Any]) -> np.generic:
    dtype, value = _dtype(m, {_SCALAR, b"data", b"dtype"}), m[b"data"]
    fits = {"b": (bool,), "f": (int, float)}.get(dtype.kind, (int,))
    if type(value) not in fits:
        raise WireError(f"a scalar of dtype {dtype.str} comes with {_brief(value)}; expected a number of that kind")
    with np.errstate(over="ignore"):
        return dtype.type(value)


def _dtype(m: dict[Any, Any], keys: set[bytes]) -> np.dtype[Any]:
    if m.keys() != keys or m.get(_ARRAY, m.get(_SCALAR)) is not True:
        raise WireError(f"an array or scalar has the keys {_brief(sorted(map(str, m)))}; expected {sorted(keys)}")
    name = m[b"dtype"]
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise WireError(f"the dtype {_brief(name)} is not taken; convert to bool, int or float, such as '<f4'")
    return np.dtype(name)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
