"""``dfplanner bench serve``: a real server under many clients: how quick it is, and whose the answers are."""

from __future__ import annotations

import re
import select
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.serve.client import ClientError, PlannerClient, Reply
from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import CELL_OFFSET, GOAL_RADIUS, Maze, maze_of, shortest_path

START_S = 300.0
"""Longest a server may take to listen."""
REACH = 4
"""Cells between a question's start and its goal, at most."""
ENOUGH_S = 2.0
"""Seconds a plan must cover to be sure to get that far; shorter ones cannot be checked for their goal."""


@dataclass(frozen=True)
class ServerProcess:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def get(self, path: str, timeout_s: float = 30.0) -> str:
        """What ``/healthz`` or ``/metrics`` answer; raises OSError if they do not."""
        return http_get(self.url, path, timeout_s)

    def memory_mb(self) -> float:
        """Megabytes it holds (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096 / 1e6


def http_get(url: str, path: str, timeout_s: float = 30.0) -> str:
    """A page of a server at ws://..., without any proxy; raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(re.sub("^ws", "http", url) + path, timeout=timeout_s) as page:
        return page.read().decode()


@contextmanager
def server_process(command: Sequence[str]) -> Iterator[ServerProcess]:
    """Runs a command that prints ``listening on URL``, and ends it afterwards; raises DFPlannerError if it does not."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield ServerProcess(process, _listening(process, log))
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout
            process.stdout.close()


def _listening(process: subprocess.Popen[str], log: IO[str]) -> str:
    """The address that a server prints."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], START_S)
    found = re.search(r"listening on (ws://\S+)", process.stdout.readline()) if ready else None
    if found:
        return found[1]
    log.seek(0)
    said = (log.read().strip().splitlines() or ["it said nothing"])[-1].removeprefix("dfplanner: ")
    raise DFPlannerError(f"the server did not start: {said}")


def serve_command(checkpoint: str, *options: str) -> list[str]:
    """The command line of a server at a free port."""
    return [sys.executable, "-m", "dfplanner", "serve", "--checkpoint", checkpoint, "--port", "0", *options]


@dataclass(frozen=True)
class Questions:
    """observations (N, 4), at rest, and goals (N, 2), at most REACH cells away."""

    observations: NDArray[np.float32]
    goals: NDArray[np.float32]

    @classmethod
    def draw(cls, maze: Maze, n: int, rng: np.random.Generator) -> Questions:
        """Questions all over a maze, no two alike."""
        cells = maze.free_cells
        pairs = [(a, b) for a in cells for b in cells if a != b and len(shortest_path(maze, a, b)) <= REACH + 1]
        places = np.array(pairs)[rng.integers(len(pairs), size=n)] - CELL_OFFSET + rng.uniform(-0.1, 0.1, (n, 2, 2))
        observations = np.concatenate([places[:, 0], np.zeros((n, 2))], 1)
        return cls(observations.astype(np.float32), places[:, 1].astype(np.float32))


@dataclass
class Load:
    """What N requests met: round trips in ms, how near their plans end to their own goals and to other requests'."""

    clients: int
    ms: NDArray[np.float64]
    seconds: float
    strangers: int
    """Replies that begin elsewhere than at the observation that was sent."""
    own: NDArray[np.float64]
    """(N,) metres between a plan's second half and the goal of its request; NaN where there was no reply."""
    other: NDArray[np.float64]
    """(N,) the same for the goal of another request: how sharp the check is."""
    failures: dict[str, int]
    mean_batch: float
    rejects: float
    checked: bool
    """Whether plans are long enough to be checked for their goal."""

    @property
    def wrong(self) -> int:
        """Replies that are not their request's."""
        return self.strangers + (int((self.own > GOAL_RADIUS).sum()) if self.checked else 0)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        answered = self.ms[np.isfinite(self.ms)]
        p50, p99 = np.percentile(answered, [50, 99]) if len(answered) else (np.nan, np.nan)
        return {
            "clients": self.clients,
            "requests": len(self.ms),
            "answered": len(answered),
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "per_second": len(answered) / self.seconds,
            "mean_batch": self.mean_batch,
            "rejects": self.rejects,
            "checked_for_goal": self.checked,
            "wrong": self.wrong,
            "another_goal_would_pass": float((self.other <= GOAL_RADIUS).mean()) if self.checked else None,
            "failures": self.failures,
        }


def metric(page: str, name: str) -> float:
    """The sum over the labels of a metric on a page in Prometheus' text format; 0 if there is none."""
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", page, re.MULTILINE))


def load(url: str, questions: Questions, clients: int) -> Load:
    """Asks all questions, each client one after the other, all clients at once."""
    n = len(questions.goals)
    ms, own, other = (np.full(n, np.nan) for _ in range(3))
    asking = [PlannerClient(url, timeout_s=60, connect_timeout_s=30, max_wait_s=120) for _ in range(clients)]
    enough = asking[0].metadata.get("plan_steps", 0) * asking[0].metadata.get("dt_s", 0) >= ENOUGH_S
    failures, strangers = Counter[str](), np.zeros(n, bool)
    start = threading.Barrier(clients + 1)

    def work(k: int) -> None:
        start.wait()
        for i in range(k, n, clients):
            try:
                reply = asking[k].infer(questions.observations[i], questions.goals[i])
            except ClientError as e:
                failures[f"{type(e).__name__}: {e}"] += 1
                continue
            ms[i], strangers[i] = reply.round_trip_ms, not begins_at(reply, questions.observations[i])
            own[i], other[i] = (distance(reply, goal) for goal in (questions.goals[i], questions.goals[i - 1]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(clients)]
    for t in threads:
        t.start()
    before = http_get(url, "/metrics")
    start.wait()
    began = time.monotonic()
    for t in threads:
        t.join()
    seconds = time.monotonic() - began
    after = http_get(url, "/metrics")
    for client in asking:
        client.close()

    def grew(name: str) -> float:
        return metric(after, name) - metric(before, name)

    batch = grew("dfplanner_batch_size_sum") / max(1.0, grew("dfplanner_batch_size_count"))
    rejects = grew("dfplanner_rejects_total")
    return Load(clients, ms, seconds, int(strangers.sum()), own, other, dict(failures), batch, rejects, enough)


def begins_at(reply: Reply, observation: NDArray[np.float32]) -> bool:
    """Whether a plan's first state is the observation."""
    return reply.states is not None and np.allclose(reply.states[0], observation, atol=1e-4)


def distance(reply: Reply, goal: NDArray[np.float32]) -> float:
    """Metres between a plan's second half and a goal, at the nearest; infinite if it tells no states."""
    if reply.states is None:
        return float("inf")
    late = reply.states[len(reply.states) // 2 :, :2]
    return float(np.linalg.norm(late - goal, axis=1).min())


def deviation(url: str, checkpoint: str, questions: Questions) -> float:
    """The largest difference between actions of seeded requests and those planned here, without a server."""
    import torch

    from dfplanner.guidance import ReachGoal
    from dfplanner.serve.engine import make_planner

    planner, worst = make_planner(checkpoint).planner, 0.0
    with PlannerClient(url, timeout_s=60, connect_timeout_s=30) as client:
        for seed, (observation, goal) in enumerate(zip(questions.observations, questions.goals, strict=True)):
            reply = client.infer(observation, goal, seed=seed)
            noise = torch.Generator().manual_seed(seed)
            plan = planner.plan(observation[None], ReachGoal(goal, pos=planner.spec.pos), generator=noise)
            worst = max(worst, float(np.abs(plan.actions[0, : len(reply.actions)] - reply.actions).max()))
    return worst


@dataclass
class Report:
    """All rows of one run, by name."""

    checkpoint: str
    rows: dict[str, Load] = field(default_factory=dict)
    deviation: float | None = None
    """Of seeded requests' actions from plans made without a server."""

    @property
    def gain(self) -> float | None:
        """Throughput of batches over that of one request after the other; None if not both were measured."""
        if not {"batched", "one by one"} <= self.rows.keys():
            return None
        fast, slow = (self.rows[k].to_dict()["per_second"] for k in ("batched", "one by one"))
        return fast / slow

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        rows = {name: row.to_dict() for name, row in self.rows.items()}
        return {"checkpoint": self.checkpoint, "rows": rows, "batching_gain": self.gain, "deviation": self.deviation}

    def text(self) -> str:
        """A table, and what it comes to."""
        lines = [
            f"{'server':<12} {'requests':>8} {'p50 ms':>8} {'p99 ms':>8} {'per s':>8} {'batch':>6} {'rejects':>7}  own"
        ]
        for name, row in self.rows.items():
            d = row.to_dict()
            right = d["answered"] - d["wrong"]
            what = (
                f"goal {right}; another's would pass for {100 * d['another_goal_would_pass']:.0f} %"
                if row.checked
                else (f"observation {right}")
            )
            lines.append(
                f"{name:<12} {d['requests']:>8} {d['p50_ms']:>8.1f} {d['p99_ms']:>8.1f} {d['per_second']:>8.1f} "
                f"{d['mean_batch']:>6.1f} {d['rejects']:>7.0f}  {what}"
            )
        if self.gain is not None:
            lines.append(f"batching gain: {self.gain:.2f} times the requests a second of one by one")
        if self.deviation is not None:
            lines.append(f"seeded requests: actions differ by {self.deviation:.1e} at most from plans without a server")
        return "\n".join(lines)

    def check(self) -> None:
        """Raises DFPlannerError if a reply was not its request's, or missing."""
        for name, row in self.rows.items():
            if row.wrong or row.failures:
                said = max(row.failures, key=row.failures.__getitem__) if row.failures else "no request failed"
                raise DFPlannerError(
                    f"{name}: {row.wrong} replies were not their request's and {sum(row.failures.values())} requests "
                    f"failed ({said}); expected none"
                )
        if self.deviation is not None and self.deviation > 1e-4:
            raise DFPlannerError(f"a served plan differs by {self.deviation:.1e} from the planner's own; expected 1e-4")


def run_bench(
    checkpoint: str, url: str, clients: int, requests: int, seed: int, threads: int, say: Callable[[str], None]
) -> Report:
    """The report of the server at ``url``, or of three started here, one after the other."""
    if min(clients, requests, threads) < 1 or seed < 0:
        raise DFPlannerError(
            f"{clients} clients, {requests} requests, {threads} threads and seed {seed} came; expected at least 1, or 0"
        )
    if url:
        return Report("", {"at the URL": load(url, _questions(url, requests, seed), clients)})
    report = Report(checkpoint)
    room = ("--threads", str(threads), "--max-connections", str(clients + 8), "--max-queue", str(clients + 8))
    from dfplanner.checkpoint import Checkpoint

    whole = str(Checkpoint.load(checkpoint).spec.horizon)
    rows = {"batched": (), "one by one": ("--max-batch", "1"), "whole plans": ("--horizon", whole)}
    for name, options in rows.items():
        say(f"{name}: {requests} requests by {clients} clients")
        with server_process(serve_command(checkpoint, *room, *options)) as server:
            questions = _questions(server.url, requests, seed)
            report.rows[name] = load(server.url, questions, clients)
            if name == "batched":
                few = Questions(questions.observations[:16], questions.goals[:16])
                report.deviation = deviation(server.url, checkpoint, few)
    return report


def _questions(url: str, n: int, seed: int) -> Questions:
    with PlannerClient(url, connect_timeout_s=30, max_wait_s=0) as client:
        env = str(client.metadata.get("env", ""))
    return Questions.draw(maze_of(env)[0], n, np.random.default_rng(seed))
