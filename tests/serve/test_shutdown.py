"""Beginning and ending: requests under way are answered, everybody is told, nothing can hold it up for ever."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the server needs websockets")
pytest.importorskip("msgpack", reason="the server needs msgpack")
pytest.importorskip("prometheus_client", reason="the server needs prometheus_client")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dfplanner.checkpoint import Checkpoint, bundled
from dfplanner.data.tokens import Tokenizer
from dfplanner.models.build import ModelConfig, build_model
from dfplanner.schedules import Schedule
from dfplanner.serve.engine import Engine
from dfplanner.serve.objectives import goal_alone
from dfplanner.serve.protocol import packb, unpackb
from dfplanner.serve.server import ServeConfig, running
from dfplanner.types import DFPlannerError, TokenSpec

ASK = packb({"observation": [1.0, 1.0, 0.0, 0.0], "goal": [3.0, 1.0]})
WAIT = packb({"observation": [7.0, 0, 0, 0]})


def engine(planner: Any) -> Engine:
    return Engine(planner, goal_alone, lambda seed: 0)


@pytest.fixture
def greeted() -> Iterator[Callable[[str], ClientConnection]]:
    """Connects to an address, and hears the greeting."""
    with ExitStack() as stack:

        def one(url: str) -> ClientConnection:
            ws = stack.enter_context(connect(url, compression=None, close_timeout=1))
            assert isinstance(ws.recv(60), bytes)
            return ws

        yield one


def code_of(ws: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as e:
        ws.recv(60)
    return e.value.rcvd.code if e.value.rcvd else 0


def status(url: str) -> int:
    try:
        with urlopen(url.replace("ws", "http", 1) + "/healthz", timeout=30) as response:
            return response.status
    except HTTPError as e:
        e.close()
        return e.code


def test_who_is_served_is_served_and_the_others_are_sent_away(planner: Any, greeted: Any) -> None:
    with running(engine(planner)) as server:
        busy, idle = greeted(server.url), greeted(server.url)
        busy.send(WAIT)
        assert planner.at_gate.wait(60) and status(server.url) == 200
        server.stop()
        assert code_of(idle) == 1001
        assert status(server.url) == 503
        with pytest.raises(InvalidStatus) as e, connect(server.url):
            pass
        assert e.value.response.status_code == 503 and b"shuts down" in e.value.response.body
        planner.gate.set()
        frame = busy.recv(60)
        assert isinstance(frame, bytes) and len(unpackb(frame)["actions"]) == 10
        assert code_of(busy) == 1001


def test_a_planner_that_hangs_holds_nobody_up_for_longer_than_was_agreed(planner: Any, greeted: Any) -> None:
    with running(engine(planner), ServeConfig(port=0, drain_s=0.2)) as server:
        thread = next(t for t in threading.enumerate() if t.name == "server")
        ws = greeted(server.url)
        ws.send(WAIT)
        assert planner.at_gate.wait(60)
        server.stop()
        thread.join(60)
        assert not thread.is_alive()
        with pytest.raises(ConnectionClosed):
            while True:
                assert isinstance(ws.recv(60), str)
    planner.gate.set()


def test_a_client_that_is_frozen_is_dropped(planner: Any) -> None:
    hello = "GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    hello += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with running(engine(planner), ServeConfig(port=0, ping_s=0.2)) as server, socket.socket() as frozen:
        frozen.settimeout(60)
        frozen.connect(("127.0.0.1", server.port))
        frozen.sendall(hello.encode())
        received = b""
        while chunk := frozen.recv(1 << 16):  # it never answers a ping
            received += chunk
    assert received.startswith(b"HTTP/1.1 101") and b"ping timeout" in received


MAIN = """
import sys
from dfplanner.cli import main
sys.exit(main(sys.argv[1:]))
"""
NO_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch was asked for")
sys.meta_path.insert(0, NoTorch())
"""


@contextmanager
def process(*args: str, torch: bool = True) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real server on a free port, and its address; whatever happens it ends."""
    command = [sys.executable, "-c", MAIN if torch else NO_TORCH + MAIN, "serve", "--port", "0", *args]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert line.startswith("listening on ws://127.0.0.1:"), server.communicate(timeout=60)
        yield server, line.split()[-1]
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def umaze() -> str:
    if "maze2d-umaze" not in bundled():
        pytest.skip("the bundled weights are not here")
    return "maze2d-umaze"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_real_server_after_its_last_answer(sig: signal.Signals, greeted: Any, umaze: str) -> None:
    with process("--checkpoint", umaze, "--window-ms", "2000") as (server, url):
        one, other = greeted(url), greeted(url)  # two could ask, so that the request of one waits for the window's end
        one.send(ASK)
        time.sleep(0.5)
        server.send_signal(sig)
        assert code_of(other) == 1001
        frame = one.recv(60)
        assert isinstance(frame, bytes)
        reply = unpackb(frame)
        assert reply["actions"].shape == (20, 2) and np.isfinite(reply["actions"]).all()
        assert code_of(one) == 1001
        out, err = server.communicate(timeout=60)
        assert (server.returncode, out, err) == (0, "", "")


def test_an_exported_file_is_served_without_torch(tmp_path: Path, greeted: Any) -> None:
    pytest.importorskip("onnx", reason="an export needs onnx")
    pytest.importorskip("onnxruntime", reason="an export needs onnxruntime")
    from dfplanner.export import export_onnx

    spec, rng = TokenSpec(obs_dim=4, act_dim=2, chunk=5, act_code=3, horizon=5, dt_s=0.1), np.random.default_rng(0)
    seen, done = (rng.normal(size=shape).astype(np.float32) for shape in ((60, 4), (60, 5, 2)))
    config = ModelConfig(width=16, layers=1, heads=2, ff=16)
    model = build_model(config, spec, 1000)
    checkpoint = Checkpoint(spec, Schedule(), "v", config, model, Tokenizer.fit(spec, seen, done))
    file = export_onnx(checkpoint, tmp_path / "tiny.onnx", "torchscript")
    with process("--checkpoint", str(file), "--runtime", "onnx", torch=False) as (server, url):
        with connect(url, compression=None) as ws:
            greeting = ws.recv(60)
            assert isinstance(greeting, bytes)
            metadata = unpackb(greeting)
            assert metadata["runtime"] == "onnx" and list(metadata["objectives"]) == ["reach_goal"]
        replies = []
        for _ in range(2):
            ws = greeted(url)
            ws.send(packb({"observation": np.ones(4), "goal": [1.0, 2.0], "seed": 1}))
            replies.append(ws.recv(60))
            assert isinstance(replies[-1], bytes)
        first, second = (unpackb(r) for r in replies)
        assert first["actions"].shape == (10, 2) and (first["actions"] == second["actions"]).all()
        ws.send(packb({"observation": np.ones(4), "objective": {"name": "smooth"}}))
        assert "no gradients" in str(ws.recv(60))
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=60)
        assert (server.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--checkpoint", "nothing-of-the-sort"], "unknown checkpoint"),
        (["--checkpoint", "maze2d-umaze", "--port", "70000"], "port 70000"),
        (["--checkpoint", "maze2d-umaze", "--action-chunks", "0"], "action_chunks"),
        (["--checkpoint", "maze2d-umaze", "--horizon", "1"], "horizon"),
        (["--checkpoint", "maze2d-umaze", "--scheme", "zigzag"], "zigzag"),
        (["--checkpoint", "maze2d-umaze", "--host", "203.0.113.9"], "203.0.113.9"),
        (["--checkpoint", "maze2d-umaze", "--runtime", "tea"], "tea"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    args: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from dfplanner.cli import main

    assert main(["serve", *args]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and reason in said.err and said.out == ""


@pytest.mark.parametrize("wrong", [{"port": -1}, {"port": 70_000}, {"max_batch": 0}, {"ping_s": 0}, {"seed": -1}])
def test_a_configuration_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(DFPlannerError, match=next(iter(wrong))):
        ServeConfig(**wrong)
