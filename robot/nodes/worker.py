"""The planner in a process of its own: started, watched, started again; asked without waiting. Imports no ROS.

A thread here waits for the worker's answers, so whoever asks never does. The worker is ``dfplanner serve`` on a port of
this machine, or a server that somebody else runs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

import numpy as np

from dfplanner.serve.client import BadRequest, PlannerClient, backoff
from dfplanner.types import DFPlannerError
from dfplanner_robot.core import Answer, Request
from dfplanner_robot.nodes.goals import Goal
from dfplanner_robot.planners import Infers, remote
from dfplanner_robot.trajectory import Floats

START_S = 120.0
"""Longest time until a worker listens and has made its first plan."""
SILENT_S = 2.0
"""Without an answer for so long, while asked, a worker is taken for frozen and started anew."""
IDLE_S = 1.0
"""Who was not asked for so long is not silent."""
LISTENING = "listening on "
# Linux kills the worker when the thread that started it is gone, however that ended; an exec keeps the arrangement.
_TETHER = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)

State = Literal["starting", "ready", "lost", "failed", "closed"]


@dataclass(frozen=True)
class Launch:
    """What plans: a checkpoint and how ``dfplanner serve`` samples from it, or the address of a server that runs."""

    checkpoint: str = "arm-reach"
    runtime: str = "torch"
    server_url: str = ""
    """Empty: a process of our own."""
    seed: int = -1
    """Of the planner's noise; below 0: another each time."""
    horizon: int = 4
    action_chunks: int = 1
    steps: int = 1
    action_steps: int = 2
    threads: int = 1

    @property
    def source(self) -> str:
        """Where plans come from, in words."""
        return self.server_url or f"{self.checkpoint} ({self.runtime})"

    def command(self) -> list[str]:
        """The command line of the worker."""
        flags = {name: str(getattr(self, name)) for name in ("checkpoint", "runtime", "threads")}
        flags |= {name: str(getattr(self, name)) for name in ("horizon", "action_chunks", "steps", "action_steps")}
        if self.seed >= 0:
            flags["seed"] = str(self.seed)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        tether = ["-ISc", _TETHER, str(os.getpid())] if sys.platform == "linux" else []
        return [sys.executable, *tether, "-m", "dfplanner", "serve", *words, "--port=0", "--drain-s=1"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a request: an answer, or in a sentence why there is none. ``took_s``: how long it took."""

    request: Request
    took_s: float
    answer: Answer | None = None
    error: str = ""


class Worker:
    """One planner for one body. ``hello``: an observation (obs,) and a goal for the first plan, which warms it up.

    ``asks``: how a client is asked for the answer to a request; ``body``: what it is for, in its own sentences.
    ``log`` is told what the worker prints and what happens to it; ``wake`` is called when there is an outcome or the
    state changed; both from other threads. After ``ready`` a lost worker is started anew for as long as it takes.
    """

    def __init__(
        self,
        launch: Launch,
        hello: tuple[Floats, Goal],
        log: Callable[[str], object] = lambda line: None,
        wake: Callable[[], None] = lambda: None,
        asks: Callable[[Infers, Request], Answer] = remote,
        body: str = "arm",
    ) -> None:
        self.launch, self.hello, self.log, self.wake, self.asks, self.body = launch, hello, log, wake, asks, body
        self.state: State = "starting"
        self.reason = ""
        """Why it is lost or failed, a sentence."""
        self.restarts = 0
        self.pid: int | None = None
        """Of the worker's process, while it is ours and runs."""
        self.metadata: dict[str, Any] = {}
        """What the server says of itself."""
        self.goal_size = len(hello[1].place)
        """Numbers in a goal, as this planner has it."""
        self.outcomes: deque[Outcome] = deque()
        """What came back, the oldest first; for the asker to take."""
        self.busy = False
        """Whether a request is under way."""
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._closing, self._settled = threading.Event(), threading.Event()
        self._client: PlannerClient | None = None
        self._thread = threading.Thread(target=self._run, name="planner's worker", daemon=True)
        self._thread.start()

    def ready(self, going_on: Callable[[], bool] = lambda: True) -> None:
        """Waits for the first plan, as long as ``going_on``; raises DFPlannerError if there is none."""
        while not self._settled.wait(0.05):
            if not going_on():
                self.close()
                raise DFPlannerError("the planner was still being loaded when the node was told to end")
        if self.state == "failed":
            raise DFPlannerError(self.reason)

    def ask(self, request: Request) -> bool:
        """Hands in a request, and whether it was taken: only a ready worker that is not busy takes one."""
        if self.state != "ready" or self.busy:
            return False
        self.busy = True
        self._requests.put(request)
        return True

    def close(self) -> None:
        """Ends the worker, at once if it is ours; twice is once."""
        self._closing.set()
        if client := self._client:
            client.close()
        self._thread.join()

    def _run(self) -> None:
        waits = self._waits()
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                with self._server() as url:
                    self._converse(url)
            except (DFPlannerError, OSError) as e:
                self.reason = str(e)
            except Exception as e:
                self.reason = f"the worker's thread failed with {type(e).__name__}: {e}"
            if self._closing.is_set():
                break
            if not self._settled.is_set():  # it never worked: who waits in ``ready`` is told why
                self._set("failed")
                return
            self._set("lost")
            while not self._requests.empty():  # taken just before
                self._tell(Outcome(self._requests.get(), 0.0, error=self.reason))
            self.log(f"the planner is lost: {self.reason}")
            if time.monotonic() - began > 60:
                waits = self._waits()
            self._closing.wait(next(waits))
            self.restarts += not self.launch.server_url
        self._set("closed")

    def _waits(self) -> Iterator[float]:
        return backoff(np.random.default_rng(), 0.2, 3.0)

    def _set(self, state: State) -> None:
        self.state = state
        self.wake()
        if state != "lost":
            self._settled.set()

    @contextlib.contextmanager
    def _server(self) -> Iterator[str]:
        """Where a server listens; one of ours ends with the block."""
        if self.launch.server_url:
            yield self.launch.server_url
            return
        process = subprocess.Popen(
            self.launch.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is for the node, which then ends it
        )
        said = _Output(process, self.log)
        try:
            self.pid = process.pid
            yield self._address(process, said)
        finally:
            self.pid = None
            process.kill()  # it has no state to save, and a frozen one would not hear SIGTERM
            process.wait()
            said.join()

    def _address(self, process: subprocess.Popen[str], said: _Output) -> str:
        """Waits until it listens; raises DFPlannerError if it ends before."""
        end = time.monotonic() + START_S
        while not said.url.wait(0.02):
            if process.poll() is not None:
                said.join()
                raise DFPlannerError(f"the planner's process ended with code {process.returncode}: {said.why()}")
            if self._closing.is_set():
                raise DFPlannerError("the planner's process was ended before it listened")
            if time.monotonic() > end:
                raise DFPlannerError(f"the planner's process did not listen within {START_S:.0f} s; it was ended")
        return said.address

    def _converse(self, url: str) -> None:
        """Connects, warms up and answers requests until the server is lost."""
        with PlannerClient(url, timeout_s=30.0, connect_timeout_s=2.0, max_wait_s=0.0) as client:
            self._client = client
            if self._closing.is_set():
                return
            observation, goal = self.hello
            self.goal_size = fits(client.metadata, observation, goal, url, self.body)
            client.infer(observation, goal.as_planners_have_it(self.goal_size), reset=True)
            self.metadata = dict(client.metadata)
            chunk_s = float(self.metadata.get("horizon", 10)) * float(self.metadata.get("dt_s", 0.05))
            # Longer than an answer is of use, so that one that is too slow is measured and told.
            client.timeout_s = max(1.0, 2 * chunk_s)
            self.reason = ""
            self._set("ready")
            self._answer(client)

    def _answer(self, client: PlannerClient) -> None:
        """Answers requests; raises DFPlannerError once the process is gone, or is silent for too long."""
        heard = asked = time.monotonic()
        error = ""
        while not self._closing.is_set():
            try:
                request = self._requests.get(timeout=0.1)
            except Empty:
                if time.monotonic() - asked > IDLE_S:
                    heard = time.monotonic()
            else:
                asked = time.monotonic()
                try:
                    answer = self.asks(client, request)
                    self._tell(Outcome(request, time.monotonic() - asked, answer))
                    heard = time.monotonic()
                except Exception as e:  # whatever it is, the asker must hear of it
                    error = str(e)
                    self._tell(Outcome(request, time.monotonic() - asked, error=error))
                    heard = time.monotonic() if isinstance(e, BadRequest) else heard
            if self.pid is not None and not _alive(self.pid):
                raise DFPlannerError("its process ended")
            if time.monotonic() - heard > SILENT_S:
                raise DFPlannerError(error or f"{client.url} does not answer")

    def _tell(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.busy = False
        self.wake()


class _Output:
    """Reads what a process prints, to the end: hands lines on, keeps the last ones, finds where it listens."""

    def __init__(self, process: subprocess.Popen[str], log: Callable[[str], object]) -> None:
        self.url, self.address = threading.Event(), ""
        self._last: deque[str] = deque(maxlen=20)
        self._process, self._log = process, log
        self._thread = threading.Thread(target=self._read, name="worker's output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in map(str.strip, lines):
                if line.startswith(LISTENING):
                    self.address = line.removeprefix(LISTENING)
                    self.url.set()
                elif line:
                    self._last.append(line)
                    self._log(line)

    def join(self) -> None:
        """Waits until all was read; what the process left behind may hold the pipe, and is not waited for."""
        self._thread.join(1.0)

    def why(self) -> str:
        """The last thing it said, in our commands' own words if these are there."""
        ours = [line.removeprefix("dfplanner: ") for line in self._last if line.startswith("dfplanner: ")]
        return (ours or list(self._last) or ["it said nothing"])[-1]


def fits(metadata: dict[str, Any], observation: Floats, goal: Goal, url: str, body: str = "arm") -> int:
    """How many numbers a goal of this server has; raises DFPlannerError where it plans for something else."""
    wanted = ((metadata.get("observation") or {}).get("observation") or {}).get("shape")
    what = metadata.get("checkpoint") or url
    if wanted is not None and tuple(wanted) != observation.shape:
        raise DFPlannerError(
            f"{what} plans for observations of shape {list(wanted)}, but this {body} has {list(observation.shape)}; "
            f"name a checkpoint that was trained for the {body}"
        )
    size = int(((metadata.get("goal") or {}).get("shape") or goal.place.shape)[0])
    try:
        return len(goal.as_planners_have_it(size))
    except DFPlannerError as e:
        raise DFPlannerError(f"{what} does not plan for this {body}: {e}") from e


def _alive(pid: int) -> bool:
    """Whether a child of ours still runs; it is not reaped."""
    if not hasattr(os, "waitid"):
        return True
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
