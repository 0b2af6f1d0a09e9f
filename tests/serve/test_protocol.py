"""The wire: what is packed comes back, openpi's own packing agrees, and nothing that comes in is trusted."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("msgpack", reason="the wire needs msgpack")

import msgpack

from dfplanner.serve.protocol import WireError, packb, unpackb

DTYPES = ["|b1", "|i1", "|u1", "<i2", ">i4", "<i8", "<u2", "<u4", ">u8", "<f2", "<f4", ">f4", "<f8"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9)
MESSAGES = st.recursive(
    PLAIN | ARRAYS | ARRAYS.filter(lambda a: a.size > 0).map(lambda a: a.ravel()[0]) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.shape == b.shape and a.tobytes() == b.tobytes() and a.dtype == b.dtype
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or a != a)


def native(message: Any) -> Any:
    """Numpy's scalars lose their byte order on the wire, as with openpi; np.float64 is a float there."""
    if isinstance(message, dict):
        return {k: native(v) for k, v in message.items()}
    if isinstance(message, list):
        return [native(v) for v in message]
    if isinstance(message, np.float64):
        return float(message)
    return message.dtype.type(message) if isinstance(message, np.generic) else message


@given(MESSAGES)
def test_what_is_packed_comes_back(message: Any) -> None:
    assert same(native(message), unpackb(packb(message)))


@given(MESSAGES)
def test_it_is_openpis_packing_to_the_byte(message: Any) -> None:
    openpi = pytest.importorskip("openpi_client.msgpack_numpy", reason="openpi-client is not installed")
    assert packb(message) == openpi.packb(message)
    assert same(native(message), openpi.unpackb(packb(message)))


@given(MESSAGES, st.data())
def test_a_truncated_message_is_an_error_and_so_is_one_that_goes_on(message: Any, data: st.DataObject) -> None:
    whole = packb(message)
    with pytest.raises(WireError):
        unpackb(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(WireError, match="follow"):
        unpackb(whole + data.draw(st.binary(min_size=1, max_size=5)))


@given(st.binary(max_size=64) | MESSAGES.map(packb), st.integers(0, 63), st.integers(0, 255))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes, at: int, byte: int) -> None:
    wrong = data[:at] + bytes([byte]) + data[at + 1 :]
    for given_ in (data, wrong):
        try:
            unpackb(given_)
        except WireError as e:
            assert "\n" not in str(e) and len(str(e)) < 400


def array(**changes: Any) -> Any:
    fields = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]} | changes
    return msgpack.packb({k.encode(): v for k, v in fields.items()})


def scalar(value: Any, dtype: str) -> Any:
    return msgpack.packb({b"__npgeneric__": True, b"data": value, b"dtype": dtype})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (array(dtype="|O"), "dtype '|O'"),
        (array(dtype="<f4,<f4", shape=[1]), "dtype"),
        (array(dtype=[["a", "<f4"], ["b", "<f4"]], shape=[1]), "dtype"),
        (array(dtype="|V8", shape=[1]), "dtype"),
        (array(dtype="<c8", shape=[1]), "dtype"),
        (array(dtype="<U2", shape=[1]), "dtype"),
        (array(dtype="<M8[s]", shape=[1]), "dtype"),
        (array(dtype="<f16", shape=[]), "dtype"),
        (array(dtype="object"), "dtype"),
        (array(shape=[3]), "12 bytes"),
        (array(shape=[2**31, 2**31, 2**31]), "bytes of data"),
        (array(shape=[0, 2**62, 2**62], data=b""), "too big"),
        (array(shape=[-2]), "shape"),
        (array(shape=[-1, -2]), "shape"),
        (array(shape=[2.0]), "shape"),
        (array(shape=[True, 2]), "shape"),
        (array(shape=2), "shape"),
        (array(shape=[1] * 9 + [2]), "shape"),
        (array(data="texttext"), "a str of data"),
        (array(more=1), "keys"),
        (array(__ndarray__=False), "keys"),
        (msgpack.packb({b"__ndarray__": True}), "keys"),
        (scalar(-1, "|u1"), "not a msgpack message"),
        (scalar(1.5, "<i4"), "scalar"),
        (scalar(2, "|b1"), "scalar"),
        (scalar("1", "<f4"), "scalar"),
        (scalar(b"\x80\x04N.", "|O"), "dtype"),
        (msgpack.packb(msgpack.ExtType(5, b"abcd")), "extension"),
        (msgpack.packb(msgpack.Timestamp(1)), "extension"),
        (b"\xc1", "msgpack"),
        (b"\xa2\xff\xff", "msgpack"),
        (msgpack.packb({1: 2}), "key"),
        (b"\x81\x90\x01", "key"),
        (b"\x82\xa1a\x01\xa1a\x02", "twice"),
        (b"\x91" * 5000, "deep"),
        (b"\x81\xa1a" * 5000, "deep"),
        (b"\xdd\xff\xff\xff\xff", "values"),
        (b"\xdf\xff\xff\xff\xff", "values"),
        (b"\x9f" + (b"\xdc\x03\xe8" + b"\xc0" * 1000) * 15, "values"),
        (b"\xc6\xff\xff\xff\xff", "ends in the middle"),
        (b"", "ends in the middle"),
        (b"\0" * (1 << 20) + b"\0", "at most 1048576"),
    ],
)
def test_what_is_refused_and_why(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason.replace("|", r"\|")):
        unpackb(data)


def test_a_bool_array_is_true_or_false_whatever_its_bytes() -> None:
    assert unpackb(array(dtype="|b1", data=b"\x00\x02\xff", shape=[3])).tolist() == [False, True, True]


@pytest.mark.parametrize("value", [object(), np.array([None]), np.array(["a"]), 1j, np.complex64(1), {1, 2}, 2**64])
def test_what_cannot_be_packed(value: Any) -> None:
    with pytest.raises(WireError):
        packb({"a": [value]})


def test_the_server_and_its_command_can_be_imported_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import dfplanner.cli.serve, dfplanner.serve.server"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
