"""Servers and clients that are killed or frozen: the others go on, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the client needs websockets")
pytest.importorskip("msgpack", reason="the client needs msgpack")
pytest.importorskip("prometheus_client", reason="the server needs prometheus_client")
if not hasattr(signal, "SIGSTOP"):
    pytest.skip("there is no SIGSTOP here", allow_module_level=True)

from dfplanner.bench.serve import ServerProcess, metric, server_process
from dfplanner.serve.client import PlannerClient, Reply, ServerLost
from dfplanner.testing import Circle

pytestmark = pytest.mark.slow
WORLD = Circle()
PATIENT: dict[str, Any] = {"timeout_s": 120.0, "connect_timeout_s": 60.0, "max_wait_s": 120.0}


def start(stack: ExitStack, **options: Any) -> ServerProcess:
    """The real server, around a planner whose plans are known."""
    command = [sys.executable, "-m", "dfplanner.serve.fake", json.dumps({"port": 0, **options})]
    return stack.enter_context(server_process(command))


def ask(client: PlannerClient, at: int = 3, way: int = 1, **more: Any) -> Reply:
    """A plan, which must be the right one."""
    reply = client.infer(WORLD.position(at), WORLD.goal(at, way), **more)
    _, actions = WORLD.future(np.array([at]), way, WORLD.spec.horizon)
    np.testing.assert_allclose(reply.actions, actions[0, : len(reply.actions)], atol=2e-3)
    return reply


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as s:
        yield s


def in_thread(what: Callable[[], Reply]) -> tuple[threading.Thread, list[Any]]:
    """Calls it; the list will hold what it returned or raised."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(what())
        except Exception as e:
            result.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def test_a_server_killed_in_the_middle_of_a_request_is_lost_at_once_and_found_again(stack: ExitStack) -> None:
    server = start(stack)
    port = int(server.url.rsplit(":", 1)[1])
    hasty = stack.enter_context(PlannerClient(server.url, **{**PATIENT, "max_wait_s": 0.0}))
    patient = stack.enter_context(PlannerClient(server.url, **PATIENT))
    assert ask(hasty).fresh and ask(patient).fresh and not ask(patient, elapsed=0).fresh
    server.process.send_signal(signal.SIGSTOP)  # so that the requests are on their way, and stay so
    calls = [in_thread(lambda: ask(hasty)), in_thread(lambda: ask(patient, elapsed=0))]
    time.sleep(0.3)
    assert not any(result for _, result in calls)
    server.process.send_signal(signal.SIGKILL)
    calls[0][0].join()
    (lost,) = calls[0][1]
    assert isinstance(lost, ServerLost) and "no answer within" not in str(lost), lost  # not for a timeout's sake
    with pytest.raises(ServerLost):
        ask(hasty)
    start(stack, port=port)
    calls[1][0].join()
    (reply,) = calls[1][1]
    assert (
        isinstance(reply, Reply) and reply.fresh
    )  # the patient call outlived the server, and says that its plan is new
    hasty.max_wait_s = 120.0
    assert ask(hasty).fresh and not ask(hasty, elapsed=0).fresh


def test_a_frozen_server_is_lost_after_the_timeout_and_found_again_when_it_thaws(stack: ExitStack) -> None:
    server = start(stack)
    client = stack.enter_context(PlannerClient(server.url, **{**PATIENT, "max_wait_s": 0.0}))
    ask(client)
    server.process.send_signal(signal.SIGSTOP)
    client.timeout_s = 0.3
    with pytest.raises(ServerLost, match=r"gave no answer within 0\.3 s"):
        ask(client)
    server.process.send_signal(signal.SIGCONT)
    client.timeout_s, client.max_wait_s = 120.0, 120.0
    assert ask(client, at=5, way=-1).fresh
    assert server.get("/healthz") == "OK\n"


ASK_FOR_EVER = """
import sys
from dfplanner.serve.client import PlannerClient
client = PlannerClient(sys.argv[1], timeout_s=120, connect_timeout_s=60)
client.infer([1.0, 0.0], [0.0, 1.0])
print("asked", flush=True)
while True:
    client.infer([1.0, 0.0], [0.0, 1.0])
"""


def test_clients_that_are_killed_or_frozen_hurt_nobody(stack: ExitStack) -> None:
    server = start(stack, ping_s=3.0, send_timeout_s=3.0)
    client = stack.enter_context(PlannerClient(server.url, **{**PATIENT, "max_wait_s": 0.0}))
    others: list[subprocess.Popen[str]] = []
    for _ in range(6):
        command = [sys.executable, "-c", ASK_FOR_EVER, server.url]
        others.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(others[-1].wait)
        stack.callback(others[-1].kill)
    for other in others:
        assert other.stdout and other.stdout.readline() == "asked\n"
    for i in range(60):
        if i % 10 == 5:
            os.kill(others[i // 10].pid, signal.SIGKILL if i // 10 % 2 else signal.SIGSTOP)
        reply = ask(client, at=i % WORLD.places, way=1 if i % 3 else -1, elapsed=0)
        assert reply.fresh == (i == 0)  # the connection, and with it the plan, is the same all the time
    assert server.get("/healthz") == "OK\n"
    end = time.monotonic() + 120
    while metric(server.get("/metrics"), "dfplanner_connections") > 1 and time.monotonic() < end:
        time.sleep(0.1)
    assert metric(server.get("/metrics"), "dfplanner_connections") == 1, "the server holds on to clients that are gone"
    assert not ask(client, elapsed=0).fresh
