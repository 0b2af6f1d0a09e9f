"""The planner's worker: asked without waiting, watched, started again; against real processes and servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the worker is asked through websockets")
pytest.importorskip("msgpack", reason="the worker is asked in msgpack")

from dfplanner.serve.fake import FakeServer, answer, refuse
from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.task import reach_task
from dfplanner_robot.core import Request
from dfplanner_robot.nodes.goals import at_rest
from dfplanner_robot.nodes.worker import Launch, Worker, fits

HELLO = at_rest(reach_task())
ZERO = np.zeros(7)
SERVER = Path(__file__).parent / "ros/chunk_server.py"


def request(elapsed: int | None = None) -> Request:
    return Request(0.0, HELLO[0], HELLO[1].posture, 0, elapsed, ZERO, ZERO, ZERO)


def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def serve(port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """The fake server of the arm as a process, and its address."""
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


@pytest.fixture
def closed() -> Iterator[list[Worker]]:
    """Workers that the test made; they are ended after it."""
    made: list[Worker] = []
    yield made
    for worker in made:
        worker.close()
        assert worker.state in ("closed", "failed")


def asked(worker: Worker) -> Any:
    """What comes of a request."""
    until(lambda: worker.ask(request()))
    assert not worker.ask(request()), "one request at a time"
    until(lambda: worker.outcomes)
    return worker.outcomes.popleft()


def test_the_command_line_says_all_that_was_asked_for() -> None:
    words = Launch("x", "onnx", seed=3, horizon=5, threads=2).command()
    assert {"--checkpoint=x", "--runtime=onnx", "--seed=3", "--horizon=5", "--threads=2", "--port=0"} <= set(words)
    assert not any(word.startswith("--seed") for word in Launch("x").command())


def test_a_server_that_dies_is_asked_again_when_it_is_back(closed: list[Worker]) -> None:
    process, url = serve()
    woken: list[str] = []
    worker = Worker(Launch(server_url=url), HELLO, wake=lambda: woken.append(""))
    closed.append(worker)
    worker.ready()
    outcome = asked(worker)
    assert outcome.answer.actions.shape == (15, 7) and outcome.answer.levels[-1] == 1000 and outcome.took_s > 0
    assert woken and worker.metadata["chunk"] == 5
    process.kill()
    process.wait()
    outcome = asked(worker)
    assert outcome.answer is None and url in outcome.error
    end = time.monotonic() + 20
    while worker.state == "ready" and time.monotonic() < end:  # it is noticed because it is asked
        worker.ask(request())
        time.sleep(0.05)
    assert worker.state == "lost" and not worker.ask(request())
    process, again = serve(int(url.rpartition(":")[2]))
    assert again == url
    until(lambda: worker.state == "ready")
    worker.outcomes.clear()
    assert asked(worker).answer is not None and worker.restarts == 0
    process.kill()


def test_what_cannot_plan_for_the_arm_is_told_at_once() -> None:
    with (
        FakeServer() as server
    ):  # its plans are of two joints, and so are not for the arm; its metadata does not say so
        worker = Worker(Launch(server_url="ws://127.0.0.1:1"), HELLO)
        with pytest.raises(DFPlannerError, match="nobody listens"):
            worker.ready()
        server.metadata = {"observation": {"observation": {"shape": [4]}}, "checkpoint": "a maze's"}
        worker = Worker(Launch(server_url=server.url), HELLO)
        with pytest.raises(DFPlannerError, match=r"a maze's plans for observations of shape \[4\].* \[17\]"):
            worker.ready()
    assert fits({}, *HELLO, "") == 3  # who says nothing may fit
    assert fits({"goal": {"shape": [7]}}, *HELLO, "") == 7
    with pytest.raises(DFPlannerError, match="a maze's does not plan for this arm: a goal of 2 numbers"):
        fits({"goal": {"shape": [2]}, "checkpoint": "a maze's"}, *HELLO, "")


def test_a_request_is_always_answered_even_if_nothing_works(closed: list[Worker]) -> None:
    def silent(connection: Any, message: Any) -> None:
        server.over.wait()

    with FakeServer(answer, refuse, silent) as server:
        worker = Worker(Launch(server_url=server.url), HELLO)
        closed.append(worker)
        worker.ready()
        assert "the goal is not finite" in asked(worker).error
        assert "no answer within" in asked(worker).error


def test_ready_gives_up_when_it_is_told_to(closed: list[Worker]) -> None:
    worker = Worker(Launch("nosuch"), HELLO)
    closed.append(worker)
    begun = time.monotonic()
    with pytest.raises(DFPlannerError, match="told to end"):
        worker.ready(lambda: time.monotonic() < begun + 0.3)
    assert worker.state == "closed" and worker.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="the tie between parent and child is Linux's")
def test_the_worker_dies_with_its_parent_however_that_dies() -> None:
    code = (
        "import numpy as np, time\n"
        "from dfplanner_robot.nodes.worker import Launch, Worker\n"
        "from dfplanner_robot.nodes.goals import Goal\n"
        "worker = Worker(Launch('maze2d-umaze'), (np.zeros(17), Goal(np.zeros(3), np.zeros(7))))\n"
        "while worker.pid is None: time.sleep(0.01)\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)  # past its first instructions, which tie it
    assert alive(child)
    parent.kill()
    parent.wait()
    until(lambda: not alive(child), 10.0)


def alive(pid: int) -> bool:
    """Whether a process runs, and is not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_frozen_worker_is_replaced(closed: list[Worker], arm_checkpoint: Path) -> None:
    said: list[str] = []
    worker = Worker(Launch(str(arm_checkpoint)), HELLO, said.append)
    closed.append(worker)
    worker.ready()
    first = worker.pid
    assert first is not None and asked(worker).answer.actions.shape == (5, 7)
    os.kill(first, signal.SIGSTOP)
    end = time.monotonic() + 60
    while worker.restarts == 0 or worker.state != "ready":
        assert time.monotonic() < end, said
        worker.ask(request())
        time.sleep(0.05)
    assert worker.pid != first and not alive(first)
    worker.outcomes.clear()
    assert asked(worker).answer is not None
    assert any("lost" in line for line in said)
