"""Wrong frames, and a WebSocket that sends what no library would, to try a server with."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np

from dfplanner.serve.protocol import packb

Rng = np.random.Generator
Frame = bytes | str
Message = dict[Any, Any]
"""A request that makes sense, which is to be spoilt; it has an observation and a goal of at least two numbers."""

_PLACES = ("observation", "goal")
_DTYPES = ("|O", "<c8", "<M8[s]", "|S4", "<U2", "|V8", "<f16", "f4,f4", "O", "float32; import os", "", "<f3", "<i9")
_NO_DTYPES = (b"<f4", 4, None, [["a", "<f4"]], {"names": 1}, [])
_SHAPES = ((2**62,), (2**31, 2**31), (-1,), (2, -1), (), (0,), (3,), (1, 2), (2.0,), "2", None, ((2,),), 2, (1,) * 40)
_KEYS = (
    "observation",
    "goal",
    "objective",
    "objective",
    "committed",
    "elapsed",
    "seed",
    "state",
    "odd",
    7,
    "",
    b"\xff",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 2**63, 1e300, float("nan"), "yes", b"yes", "x" * 5000, [], {}, [1, [2, [3]]], [0] * 3000),
    *({"name": "reach_goal"}, {"name": "reach_goal", "goal": [0, 1], "how": "magic"}, {"name": "__import__", "os": 1}),
    *({"name": "avoid", "centre": [0, 0], "radius": -1}, {"name": "stay_near", "point": [0, float("inf")]}),
    *({"name": "limits", "low": [1, 1], "high": [0, 0]}, [{"name": "smooth"}] * 50),
)


def array(dtype: Any = "<f4", shape: Any = (2,), data: Any = b"\0" * 8, **more: Any) -> Message:
    """An array as it is on the wire, with anything wrong that one likes."""
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape, **more}


_ARRAYS = (
    *(array(data="text"), array(extra=1), array() | {b"__ndarray__": False}, {b"__ndarray__": True}),
    *({b"__ndarray__": True, b"dtype": "<f4"}, {b"__npgeneric__": True, b"data": b"x", b"dtype": "<f4"}),
    {b"__npgeneric__": True, b"data": 10**18, b"dtype": "<i1"},
    {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]},
)


def pick(rng: Rng, things: Sequence[Any]) -> Any:
    """One of them; ``rng.choice`` would make an array of them."""
    return things[int(rng.integers(len(things)))]


def noise(rng: Rng, message: Message) -> Frame:
    """Any bytes."""
    return rng.bytes(int(rng.integers(0, 300)))


def mutated(rng: Rng, message: Message) -> Frame:
    """A few bytes changed, put in, taken out or said twice."""
    data = bytearray(packb(message))
    for _ in range(rng.integers(1, 6)):
        at, other, how = int(rng.integers(len(data))), int(rng.integers(len(data))), rng.integers(4)
        if how == 0:
            data[at] = rng.integers(256)
        elif how == 1:
            data[at:at] = rng.bytes(int(rng.integers(1, 5)))
        elif how == 2:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            data[at:at] = data[other : other + 20]
        data = data or bytearray(b"\xc0")
    return bytes(data)


def truncated(rng: Rng, message: Message) -> Frame:
    """The beginning."""
    data = packb(message)
    return data[: int(rng.integers(len(data)))]


def prolonged(rng: Rng, message: Message) -> Frame:
    """More than a message."""
    return packb(message) + rng.bytes(int(rng.integers(1, 50)))


def wrong_dtype(rng: Rng, message: Message) -> Frame:
    """Objects (pickled), texts, dates, complex and structured numbers, and what is no dtype."""
    dtype = pick(rng, _NO_DTYPES if rng.random() < 0.2 else _DTYPES)
    data = pickle.dumps(print) if str(dtype).endswith("O") else b"\0" * 8
    return packb(message | {pick(rng, _PLACES): array(dtype, (2,), data)})


def wrong_shape(rng: Rng, message: Message) -> Frame:
    """Huge, negative, of the wrong size, or no shape."""
    return packb(message | {pick(rng, _PLACES): array("<f4", pick(rng, _SHAPES), b"\0" * 4 * int(rng.integers(4)))})


def wrong_array(rng: Rng, message: Message) -> Frame:
    """Arrays and scalars with parts that are missing, too many or of another kind."""
    return packb(message | {pick(rng, (*_PLACES, "seed")): pick(rng, _ARRAYS)})


def not_finite(rng: Rng, message: Message) -> Frame:
    """A NaN or an infinity in one of the arrays."""
    key = pick(rng, _PLACES)
    numbers = np.array(message[key], pick(rng, (np.float16, np.float32, np.float64)))
    numbers[rng.integers(2)] = pick(rng, (np.nan, np.inf, -np.inf))
    return packb(message | {key: numbers})


def deep(rng: Rng, message: Message) -> Frame:
    """Lists or maps within each other."""
    n = int(rng.integers(8, 3000))
    inner = pick(rng, (b"\x91" * n + b"\xc0", b"\x81\xa1a" * n + b"\xc0", b"\x81" * n))
    return b"\x81\xabobservation" + inner if rng.random() < 0.5 else inner


def huge_claim(rng: Rng, message: Message) -> Frame:
    """A few bytes that promise gigabytes."""
    head = pick(rng, (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"))
    return b"\x81\xabobservation" * int(rng.integers(2)) + head + b"\xff\xff\xff\xf0" + rng.bytes(20)


def extension(rng: Rng, message: Message) -> Frame:
    """msgpack's own types for something else."""
    value = pick(rng, (msgpack.ExtType(int(rng.integers(0, 128)), rng.bytes(12)), msgpack.Timestamp(2**33, 5)))
    return msgpack.packb({"observation": value}) or b""


def wrong_value(rng: Rng, message: Message) -> Frame:
    """A key that is not known, or a value that makes no sense there."""
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in message.items()}
    return msgpack.packb({**plain, pick(rng, _KEYS): pick(rng, _VALUES)}) or b""


def text(rng: Rng, message: Message) -> Frame:
    """A text frame."""
    return pick(rng, ("", "hello", "{}", '{"observation": [0, 0]}', "x" * 10_000, "\N{SNOWMAN}" * 50))


def no_map(rng: Rng, message: Message) -> Frame:
    """Another thing than a map, or a map without an observation."""
    return packb(pick(rng, (None, 1, "observation", [message], {}, {"goal": [0.0, 1.0]}, np.zeros(2), True)))


def large(rng: Rng, message: Message) -> Frame:
    """With thousands of bytes that nobody needs."""
    return packb(message | {"image": rng.bytes(int(rng.integers(10_000, 39_000)))})


def untouched(rng: Rng, message: Message) -> Frame:
    """As it was."""
    return packb(message)


KINDS: tuple[Callable[[Rng, Message], Frame], ...] = (
    *(noise, mutated, mutated, mutated, truncated, prolonged, wrong_dtype, wrong_shape, wrong_array, not_finite),
    *(deep, huge_claim, extension, wrong_value, wrong_value, text, no_map, large, untouched),
)


class Wire:
    """A WebSocket made by hand: it sends anything, and is quick to make anew. Raises OSError if the server hangs up."""

    def __init__(self, url: str, timeout_s: float = 120.0) -> None:
        self.host, port = url.removeprefix("ws://").split(":")
        self.socket = socket.create_connection((self.host, int(port)), timeout_s)
        self.buffer = b""

    def open(self) -> bytes:
        """Shakes hands; the first frame's payload, the metadata."""
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = self.take(1)
        while not head.endswith(b"\r\n\r\n"):
            head += self.take(1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionRefusedError(head.decode(errors="replace").split("\r\n")[0])
        return self.receive()[1]

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        while len(self.buffer) < n:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the server hung up")
            self.buffer += data
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def send(self, frame: Frame) -> None:
        """A whole frame, masked with zeros."""
        data = frame.encode() if isinstance(frame, str) else frame
        n, opcode = len(data), 0x81 if isinstance(frame, str) else 0x82
        if n < 126:
            head = struct.pack(">BB", opcode, 0x80 | n)
        else:
            head = struct.pack(">BBH", opcode, 0xFE, n) if n < 1 << 16 else struct.pack(">BBQ", opcode, 0xFF, n)
        self.socket.sendall(head + b"\0\0\0\0" + data)

    def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; servers do not mask."""
        opcode, n = self.take(2)
        if n == 126:
            (n,) = struct.unpack(">H", self.take(2))
        elif n == 127:
            (n,) = struct.unpack(">Q", self.take(8))
        return opcode & 0x0F, self.take(n)

    def close(self, rude: bool = False) -> None:
        """Hangs up; rudely: with a reset instead of a farewell."""
        if rude:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


_NO_FRAMES = (
    # a reserved opcode, no mask, never finished, a control frame too long, sizes that never come, bytes of no text,
    # reserved bits, many pings, a close code that is none, the end of what did not begin
    *(b"\x83\x80\0\0\0\0", b"\x82\x05hello", b"\x02\x85\0\0\0\0hello", b"\x89\xfe\x01\x04" + b"x" * 264),
    *(b"\x82\xff" + b"\x7f" * 8, b"\x82\xff" + struct.pack(">Q", 10**4) + b"\0" * 99, b"\x81\x82\0\0\0\0\xff\xfe"),
    *(b"\xf2\x80\0\0\0\0", b"\x89\x80\0\0\0\0" * 200, b"\x88\x82\0\0\0\0\0\x01", b"\x00\x80\0\0\0\0", b""),
)
_NO_HANDSHAKES = (
    *(b"", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 9000, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"),
    *(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0"),
)


def bother(url: str, rng: Rng) -> None:
    """What is no frame at all, or never finished, or no handshake; then it hangs up, often without listening."""
    wire, after = Wire(url), rng.random() < 0.7
    if after:
        wire.open()
    try:
        wire.socket.sendall(
            rng.bytes(200) if rng.random() < 0.1 else pick(rng, _NO_FRAMES if after else _NO_HANDSHAKES)
        )
        if rng.random() < 0.3:
            wire.socket.settimeout(0.02)
            wire.socket.recv(4096)
    except OSError:
        pass
    wire.close(rude=rng.random() < 0.5)
