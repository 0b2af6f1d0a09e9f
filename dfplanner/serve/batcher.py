"""Requests that arrive together are planned together, on one worker thread, with a bounded queue in front."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from dfplanner.serve.engine import Engine
from dfplanner.serve.metrics import Metrics
from dfplanner.serve.session import Ask
from dfplanner.types import DFPlannerError, Plan

log = logging.getLogger("dfplanner.serve")


class Busy(DFPlannerError):
    """There is no room for another request or connection now."""


class PlanFailed(DFPlannerError):
    """The planner could not answer this request."""


@dataclass(frozen=True)
class Planned:
    """A plan for one request (a batch of one), with what it took: milliseconds, and requests planned together."""

    plan: Plan
    queue_ms: float
    infer_ms: float
    batch: int


@dataclass(frozen=True, eq=False)
class _Job:
    ask: Ask
    future: Future[Planned] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)

    @property
    def structure(self) -> tuple[Any, ...]:
        """Jobs of equal structure can be planned in one call; a seed is an agreement on the noise, so it goes alone."""
        a = self.ask
        alone = None if a.seed is None else id(self)
        return tuple(t.structure for t in a.terms), a.previous is not None, a.committed, alone


class Batcher:
    """Plans what is submitted. After the first request it waits ``window_s`` for more, or until all ``askers`` asked.

    At most ``max_queue`` requests wait, and ``max_batch`` are planned in one call.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        window_s: float = 0.002,
        max_batch: int = 64,
        max_queue: int = 128,
        seed: int | None = None,
        askers: Callable[[], int] = lambda: 1 << 30,
    ) -> None:
        self.engine, self.metrics, self.window_s, self.max_batch = engine, metrics, window_s, max_batch
        self.max_queue, self.askers = max_queue, askers
        self._noise = engine.generator(secrets.randbits(62) if seed is None else seed)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock, self._waiting, self._stopping = threading.Lock(), 0, False
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        self._thread.start()

    def submit(self, ask: Ask) -> Future[Planned]:
        """The plan to come; cancel it if nobody wants it any more. Raises Busy if the queue is full or closing."""
        with self._lock:
            if self._stopping:
                raise Busy("the server shuts down; try another, or later")
            if self._waiting >= self.max_queue:
                raise Busy(f"{self._waiting} requests are waiting; try again later")
            job = _Job(ask)
            self._count(1)
            self._queue.put(job)
        return job.future

    def stop(self, timeout_s: float) -> bool:
        """Finishes what was submitted, takes nothing more; whether that was done in time."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _count(self, change: int) -> None:
        self._waiting += change
        self.metrics.waiting.set(self._waiting)

    def _run(self) -> None:
        last = False
        while not last:
            jobs, last = self._gather()
            groups: dict[tuple[Any, ...], list[_Job]] = {}
            for job in jobs:
                if job.future.set_running_or_notify_cancel():
                    groups.setdefault(job.structure, []).append(job)
            for group in groups.values():
                self._answer(group)

    def _gather(self) -> tuple[list[_Job], bool]:
        """The next jobs, and whether they are the last."""
        jobs: list[_Job] = []
        end = 0.0
        while not jobs or len(jobs) < min(self.max_batch, self.askers()):
            try:
                job = self._queue.get(timeout=max(0.0, end - time.perf_counter()) if jobs else None)
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            if not jobs:
                end = time.perf_counter() + self.window_s
            jobs.append(job)
            with self._lock:
                self._count(-1)
        return jobs, False

    def _answer(self, jobs: Sequence[_Job]) -> None:
        """Plans a group in one call; if that fails, each alone, so that a request suffers from its own faults only."""
        start = time.perf_counter()
        try:
            plan = self._plan([job.ask for job in jobs])
        except Exception as e:
            if len(jobs) > 1:
                for job in jobs:
                    self._answer([job])
                return
            if not isinstance(e, DFPlannerError):
                log.exception("the planner failed")
            reason = str(e) if isinstance(e, DFPlannerError) else f"the planner failed ({type(e).__name__})"
            jobs[0].future.set_exception(PlanFailed(reason))
            return
        took = time.perf_counter() - start
        self.metrics.planning.observe(took)
        self.metrics.batch.observe(len(jobs))
        for i, job in enumerate(jobs):
            queued = 1e3 * (start - job.since)
            job.future.set_result(Planned(part(plan, i), queued, 1e3 * took, len(jobs)))

    def _plan(self, asks: Sequence[Ask]) -> Plan:
        first = asks[0]
        elapsed = np.array([a.elapsed for a in asks])
        plan = self.engine.planner.plan(
            np.stack([a.observation for a in asks]),
            self.engine.objective([a.terms for a in asks], self.engine.planner.spec),
            together([a.previous for a in asks if a.previous is not None]) if first.previous else None,
            first.committed,
            self._noise if first.seed is None else self.engine.generator(first.seed),
            elapsed=int(elapsed[0]) if (elapsed == elapsed[0]).all() else elapsed,
        )
        if len(plan.actions) != len(asks) or not np.isfinite(plan.actions).all() or not np.isfinite(plan.states).all():
            raise PlanFailed("the plan came out with numbers that are not finite; check the observation and the goal")
        return plan


_BATCHED = ("states", "actions", "levels", "score", "tokens")


def part(plan: Plan, i: int) -> Plan:
    """The plan (a batch of one) of a batch's problem i, in memory of its own."""
    return _with(plan, {name: getattr(plan, name)[i : i + 1].copy() for name in _BATCHED})


def together(plans: Sequence[Plan]) -> Plan:
    """Plans of equal shapes as one batch."""
    return _with(plans[0], {name: np.concatenate([getattr(p, name) for p in plans]) for name in _BATCHED})


def _with(plan: Plan, arrays: dict[str, Any]) -> Plan:
    rest = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in _BATCHED}
    return Plan(**{**rest, **arrays, "trace": ()})
