"""At least 10,000 wrong frames: each gets the error that it should, and a client beside them gets right answers."""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the client needs websockets")
pytest.importorskip("msgpack", reason="the client needs msgpack")
pytest.importorskip("prometheus_client", reason="the server needs prometheus_client")

from dfplanner.bench.serve import ServerProcess, metric, server_process
from dfplanner.serve.client import PlannerClient
from dfplanner.serve.fuzz import KINDS, Frame, Rng, Wire, bother, pick
from dfplanner.serve.protocol import unpackb
from dfplanner.serve.session import Session
from dfplanner.testing import Circle
from dfplanner.types import DFPlannerError

FRAMES, BOTHERS = 10_000, 1_000
MAX_BYTES = 20_000
WORLD = Circle()
HORIZON = 4


def valid(rng: Rng) -> dict[str, Any]:
    """A request that makes sense."""
    at, way = rng.integers(WORLD.places), rng.choice([1, -1])
    message: dict[str, Any] = {"observation": WORLD.position(at), "goal": WORLD.goal(at, way), "reset": True}
    return message | ({"objective": {"name": "smooth", "weight": 0.5}} if rng.random() < 0.2 else {})


def verdict(frame: Frame) -> str | None:
    """The text that the server must answer with; None if it must answer with a plan."""
    try:
        Session(WORLD.spec, HORIZON, MAX_BYTES).read(frame)
    except DFPlannerError as e:
        return str(e)
    return None


def judge(wire: Wire, frame: Frame) -> str:
    """How the server answered a frame; raises AssertionError if it was not as it should."""
    expected = verdict(frame)
    wire.send(frame)
    opcode, payload = wire.receive()
    if expected is None and opcode == 2:
        assert np.isfinite(unpackb(payload)["actions"]).all()
        return "plan"
    said = payload.decode()
    assert opcode == 1, (opcode, payload)
    # numbers that the model cannot take, such as 1e30, are found out by the plan that they make
    assert said == expected if expected is not None else said.startswith("the plan came out"), (said, expected)
    opcode, payload = wire.receive()
    assert opcode == 8 and struct.unpack(">H", payload[:2]) == (1011,), (opcode, payload)
    return "refused"


def attack(url: str, rng: Rng, n: int, counts: Counter[str], errors: list[BaseException]) -> None:
    """Sends n frames, and judges what comes back; a connection lasts until its first wrong frame."""
    wire: Wire | None = None
    for i in range(n):
        if errors:
            return
        kind = pick(rng, KINDS)
        frame = kind(rng, valid(rng))
        try:
            if wire is None:
                wire = Wire(url)
                assert unpackb(wire.open())["horizon"] == HORIZON
            outcome = judge(wire, frame)
        except (AssertionError, OSError, ValueError) as e:
            raise AssertionError(f"{kind.__name__}, frame {i}: {frame[:200]!r}: {e!r}") from e
        counts[outcome] += 1
        if outcome == "refused":
            wire.close()
            wire = None
    if wire:
        wire.close(rude=True)


def bother_often(url: str, rng: Rng, n: int, counts: Counter[str], errors: list[BaseException]) -> None:
    """What is no frame at all, n times."""
    for _ in range(n):
        if not errors:
            bother(url, rng)
            counts["bothered"] += 1


def in_parallel(jobs: list[Callable[[], None]], errors: list[BaseException]) -> list[threading.Thread]:
    """Starts a thread for each; what they raise is put into the list."""

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for t in threads:
        t.start()
    return threads


def well_behaved(server: ServerProcess, over: threading.Event, answers: list[int]) -> None:
    """Asks until it is over; every plan must be the right one, and the connection always the same."""
    rng = np.random.default_rng(0)
    with PlannerClient(server.url, timeout_s=120, connect_timeout_s=60, max_wait_s=0) as client:
        while not over.is_set():
            at, way = rng.integers(WORLD.places), rng.choice([1, -1])
            reply = client.infer(WORLD.position(at), WORLD.goal(at, way), elapsed=0)
            _, actions = WORLD.future(np.array([at]), way, WORLD.spec.horizon)
            np.testing.assert_allclose(reply.actions, actions[0, :HORIZON], atol=2e-3)
            assert reply.fresh == (not answers)
            answers.append(int(at))
            over.wait(0.02)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """The real one, around a planner whose plans are known."""
    command = [sys.executable, "-m", "dfplanner.serve.fake", json.dumps({"port": 0, "max_bytes": MAX_BYTES})]
    with server_process(command) as process:
        yield process


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_ten_thousand_wrong_frames_hurt_nobody(server: ServerProcess) -> None:
    over, answers, counts, memory = threading.Event(), list[int](), Counter[str](), list[float]()
    errors: list[BaseException] = []
    beside = in_parallel([lambda: well_behaved(server, over, answers)], errors)
    try:
        for phase, share in enumerate((0.1, 0.9)):
            half, rude = int(share * FRAMES / 2), int(share * BOTHERS)
            rngs = [np.random.default_rng([phase, k]) for k in range(3)]
            threads = in_parallel(
                [
                    lambda r=rngs[0], n=half: attack(server.url, r, n, counts, errors),
                    lambda r=rngs[1], n=half: attack(server.url, r, n, counts, errors),
                    lambda r=rngs[2], n=rude: bother_often(server.url, r, n, counts, errors),
                ],
                errors,
            )
            for t in threads:
                t.join()
            assert server.get("/healthz") == "OK\n"
            memory.append(server.memory_mb())
    finally:
        over.set()
        for t in beside:
            t.join()
    assert not errors, errors[0]
    assert server.process.poll() is None
    assert counts["plan"] + counts["refused"] == FRAMES and counts["bothered"] == BOTHERS
    assert counts["plan"] > FRAMES // 50 and counts["refused"] > FRAMES // 2, counts
    assert metric(server.get("/metrics"), 'dfplanner_requests_total{outcome="invalid"}') > FRAMES // 2
    assert len(answers) > 20
    assert memory[1] < memory[0] + 50, f"the server grew from {memory[0]:.0f} to {memory[1]:.0f} MB"


def test_a_frame_far_too_large_is_cut_off_and_only_its_connection_ends(server: ServerProcess) -> None:
    with PlannerClient(server.url, timeout_s=120, connect_timeout_s=60) as client:
        wire = Wire(server.url)
        wire.open()
        wire.send(b"\xc6" + b"\0" * (3 * MAX_BYTES))
        opcode, payload = wire.receive()
        assert opcode == 8 and struct.unpack(">H", payload[:2]) == (1009,)
        wire.close()
        assert np.isfinite(client.infer(WORLD.position(0), WORLD.goal(0, 1)).actions).all()
