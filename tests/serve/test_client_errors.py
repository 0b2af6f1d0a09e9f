"""What goes wrong between a client and whatever is at the other end is told in a sentence, and never waits for ever."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the client needs websockets")
pytest.importorskip("msgpack", reason="the client needs msgpack")

from dfplanner.serve.client import BadRequest, ClientError, PlannerClient, ServerBusy, ServerLost, WrongServer
from dfplanner.serve.fake import FakeServer, refuse
from dfplanner.serve.protocol import packb
from dfplanner.types import DFPlannerError

SEEN = np.array([1.0, 2.0, 0.0, 0.0], np.float32)
QUICK: dict[str, Any] = {"timeout_s": 5.0, "connect_timeout_s": 5.0, "first_backoff_s": 0.005, "max_backoff_s": 0.02}


@contextmanager
def listener(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server that is no WebSocket's, at the address that comes out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def run() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                    talk(held[-1])
                except OSError:
                    return

        threading.Thread(target=run, daemon=True).start()
        try:
            yield f"ws://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for s in held:
                s.close()


def is_a_sentence(error: BaseException) -> bool:
    """One line that says what to do, or what happened; no traceback, no repr of an exception."""
    return re.fullmatch(r"[^\n]{20,300}", str(error)) is not None and "Traceback" not in str(error)


def test_a_server_that_does_not_read_holds_nobody_for_ever() -> None:
    def upgrade_and_stall(s: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(4096)
        found = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
        assert found
        proof = base64.b64encode(hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        reply = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        greeting = packb(FakeServer.metadata)
        s.sendall(reply + b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n" + bytes([0x82, len(greeting)]) + greeting)

    with listener(upgrade_and_stall) as url:
        client = PlannerClient(url, max_wait_s=0, **{**QUICK, "timeout_s": 0.2})
        with pytest.raises(ServerLost):
            client.infer(np.zeros(2_000_000))  # more than the sockets' buffers hold
        client.close()


WRONG = ["localhost:8000", "http://localhost:8000", "ws://", "ws://host:port", "ws://host:99999", "", "ws://[::1", 8000]


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_address_is_told(url: Any) -> None:
    with pytest.raises(DFPlannerError, match="expected ws://HOST:PORT, such as") as told:
        PlannerClient(url)
    assert is_a_sentence(told.value) and not isinstance(told.value, ClientError)


@pytest.mark.parametrize("bad", [{"timeout_s": 0}, {"max_wait_s": -1}, {"timeout_s": float("nan")}])
def test_times_that_cannot_be_are_told(bad: dict[str, float]) -> None:
    with pytest.raises(DFPlannerError, match="expected times above 0") as told:
        PlannerClient("ws://127.0.0.1:1", **bad)  # pyright: ignore[reportArgumentType]
    assert is_a_sentence(told.value)


@pytest.mark.parametrize("observation", [["a"], [[1], [1, 2]], [None], [1j]])
def test_an_observation_that_is_no_array_of_numbers_is_told_and_costs_no_connection(observation: Any) -> None:
    with FakeServer() as server, PlannerClient(server.url, **QUICK) as client:
        client.infer(SEEN)
        with pytest.raises(DFPlannerError, match="expected an array of numbers"):
            client.infer(observation)
        with pytest.raises(DFPlannerError, match="has no form on the wire"):
            client.infer(SEEN, objective={"name": object()})
        assert not client.infer(SEEN, elapsed=1).fresh and server.connections == 1


def test_nobody_listening_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with pytest.raises(ServerLost, match=rf"nobody listens at ws://127.0.0.1:{port}; start `dfplanner serve`") as told:
        PlannerClient(f"ws://127.0.0.1:{port}", max_wait_s=0.05, **QUICK)
    assert is_a_sentence(told.value)


def test_a_host_that_is_not_there_is_told() -> None:
    with pytest.raises(ServerLost, match="could not be reached") as told:
        PlannerClient("ws://no-such-host.invalid:8000", max_wait_s=0, **QUICK)
    assert is_a_sentence(told.value)


def says(what: bytes) -> Callable[[socket.socket], None]:
    """A server that says something of its own, and hangs up when the other side has had enough."""

    def talk(s: socket.socket) -> None:
        s.sendall(what)
        while s.recv(4096):
            pass
        s.close()

    return talk


def hang_up(s: socket.socket) -> None:
    s.recv(4096)
    s.close()


@pytest.mark.parametrize(
    ("talk", "kind"),
    [
        (says(b"SSH-2.0-OpenSSH_9.6\r\n"), WrongServer),
        (says(b"\x00" * 20_000), WrongServer),
        (hang_up, ServerLost),
        (lambda s: None, ServerLost),
    ],
    ids=["another protocol", "noise", "hangs up", "silent"],
)
def test_a_port_that_speaks_no_websocket_is_told(
    talk: Callable[[socket.socket], None], kind: type[ClientError]
) -> None:
    with listener(talk) as url, pytest.raises(kind) as told:
        PlannerClient(url, max_wait_s=0, **{**QUICK, "connect_timeout_s": 0.5})
    assert url in str(told.value) and is_a_sentence(told.value)


def test_a_web_server_is_told() -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(WrongServer, match="answered with HTTP status 404") as told:
            PlannerClient(f"ws://127.0.0.1:{server.server_port}", **QUICK)
        server.shutdown()
    assert is_a_sentence(told.value)


@pytest.mark.parametrize("first", ["hello", b"\xc1", packb([1, 2]), packb(FakeServer.metadata)[:-1]])
def test_a_websocket_that_greets_otherwise_is_told(first: str | bytes) -> None:
    with FakeServer(greet=lambda c, n: c.send(first)) as server, pytest.raises(WrongServer) as told:
        PlannerClient(server.url, **QUICK)
    assert is_a_sentence(told.value) and server.connections == 1


@pytest.mark.parametrize("reply", [b"\xc1", packb([1]), packb({}), packb({"actions": 1}), packb({"actions": SEEN})])
def test_an_answer_that_is_no_plan_is_told(reply: bytes) -> None:
    with FakeServer(lambda c, r: c.send(reply)) as server, PlannerClient(server.url, **QUICK) as client:
        with pytest.raises(WrongServer) as told:
            client.infer(SEEN)
        assert is_a_sentence(told.value) and len(server.requests) == 1
        assert client.infer(SEEN).fresh


def test_a_refusal_and_a_busy_answer_are_sentences_too() -> None:
    with FakeServer(refuse) as server, PlannerClient(server.url, **QUICK) as client:
        with pytest.raises(BadRequest) as told:
            client.infer(SEEN)
        assert is_a_sentence(told.value)

    class Full(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = b"busy: 128 clients are connected; try again later\n"
            self.send_response(503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Full) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        with pytest.raises(ServerBusy, match="is busy: 128 clients are connected; try again later") as told:
            PlannerClient(f"ws://127.0.0.1:{http.server_port}", max_wait_s=0, **QUICK)
        http.shutdown()
    assert is_a_sentence(told.value)
