"""The guard as a node has it: behind a lock, with one set of watchdogs for streams of plans and one for whole ones."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import JointLimits
from dfplanner_robot.checks import Surroundings
from dfplanner_robot.safety import Command, Guard
from dfplanner_robot.settings import JointReading, SafetySettings, Verdict
from dfplanner_robot.states import Clamp, Event, Mode, Outcome, Reason
from dfplanner_robot.trajectory import SAME_S, JointTrajectory

HALTED = (Event.HALT, Event.FAIL, Event.RESTED_STOPPED, Event.RESTED_FAULT)
"""Changes of mode that have a reason."""
STREAM_S = 1.0
"""Who beat so recently before a plan streams plans, and is watched."""


class Gate:
    """A guard, its beats and its operator's wishes; from any thread. ``autostart``: it starts once readings are sound.

    A plan that comes within a second of a heartbeat is one of a stream: the timeouts of ``settings`` hold. Any other
    is whole, sent by hand, and followed to its end without them.
    """

    def __init__(
        self, limits: JointLimits, settings: SafetySettings, surroundings: Surroundings, autostart: bool
    ) -> None:
        self.limits, self.surroundings, self.autostart = limits, surroundings, autostart
        self.settings = settings
        self.lock = threading.Lock()
        self.changes: deque[tuple[Mode, str]] = deque(maxlen=100)
        """Modes that were entered, and why, until someone takes them out."""
        self.streaming = False
        """Whether the last plan was one of a stream."""
        self.revised = False
        """Whether what is commanded has taken another course since ``ahead`` was asked."""
        self.foreign = 0
        """Readings of other joints than ours."""
        self._unstarted = ""
        """Why it does not start by itself, in a sentence."""
        self._before: Command | None = None
        self._last: Command | None = None
        self._beat, self._wanted = -np.inf, autostart
        self._guard = Guard(limits, self._watched(False), surroundings)
        self._seen: tuple[float, Mode, Event, Mode] | None = None

    def _watched(self, streaming: bool) -> SafetySettings:
        timeouts = {} if streaming else {"plan_timeout_s": None, "heartbeat_timeout_s": None}
        return replace(self.settings, **timeouts)

    @property
    def mode(self) -> Mode:
        """What the guard is doing."""
        return self._guard.mode

    def tick(self, now: float, reading: JointReading | None) -> Command:
        """``Guard.tick``; starts the guard first, if it should start by itself."""
        with self.lock:
            if self._wanted and self._guard.mode is Mode.IDLE and self._guard.senses.good:
                try:
                    self._guard.start(now)
                    self._wanted = False
                except DFPlannerError as e:  # not yet; the next reading may do
                    self._unstarted = str(e)
            command = self._guard.tick(now, reading)
            self._before, self._last = self._last, command
            self._note()
            return command

    def ahead(self, seconds: float) -> JointTrajectory | None:
        """What was commanded at the tick before the last, then ``Guard.ahead``, a point a tick; None while idle.

        What changes with a tick changes after the one before: so this joins what was told then without a jump. The
        guard's own points lie where jerks change, which may be less than a microsecond apart, too near for a message.
        """
        with self.lock:
            self.revised = False
            if self._guard.mode is Mode.IDLE:
                return None
            whole, dt, before = self._guard.ahead(seconds), self.settings.dt_s, self._before
        steps = max(1, int(np.ceil(whole.times[-1] / dt - SAME_S)))
        times = dt * np.arange(steps + 1, dtype=np.float64)
        q, v, a, _ = whole.curve.at(whole.stamp + times)
        q[-1], v[-1], a[-1] = whole.positions[-1], 0.0, 0.0
        if before is None or before.position is None or before.velocity is None or before.acceleration is None:
            return JointTrajectory(whole.names, whole.stamp, times, q, v, a)
        rows = zip((before.position, before.velocity, before.acceleration), (q, v, a), strict=True)
        q, v, a = (np.concatenate([first[None], rest]) for first, rest in rows)
        return JointTrajectory(whole.names, whole.stamp - dt, np.append(0.0, dt + times), q, v, a)

    def lapse(self, now: float, way: JointTrajectory, gone_s: float) -> None:
        """``Guard.lapse``: the controller went on along what ``ahead`` said last."""
        with self.lock:
            self._guard.lapse(now, way, gone_s)
            self._last = None  # what was commanded before is not where the controller is
            self._note()

    def beat(self, now: float) -> None:
        """The planner is alive."""
        with self.lock:
            self._beat = now
            self._guard.heartbeat(now)

    def own(self, reading: JointReading) -> bool:
        """Whether a reading is our arm's, or, which is counted, of other joints: others publish on the same topic."""
        foreign = self._guard.senses.foreign(reading)
        self.foreign += foreign
        return not foreign

    def refuse(self, now: float, detail: str) -> Verdict:
        """Brake for what cannot even be read as a plan."""
        with self.lock:
            verdict = self._guard.refuse(now, Reason.FORM, detail)
            self._note()
            return verdict

    def propose(self, now: float, trajectory: JointTrajectory) -> Verdict:
        """``Guard.propose``; one with positions alone is given velocities first."""
        with self.lock:
            guard = self._guard
            self.streaming = now - self._beat <= STREAM_S
            guard.settings = self._watched(self.streaming)
            verdict = guard.propose(now, trajectory, fill=True)
            self.revised |= verdict.outcome is not Outcome.BRAKE
            self._note()
            return verdict

    def ask(self, what: str, now: float) -> str:
        """The operator's ``start``, ``stop``, ``resume`` or ``reset``: what came of it, in a sentence.

        ``start`` in ``stopped`` or ``fault`` lets the arm go and begins anew where it is. Raises DFPlannerError where
        the guard refuses.
        """
        with self.lock:
            try:
                if what == "start" and self._guard.mode in (Mode.STOPPED, Mode.FAULT):
                    self._guard.release(now)
                getattr(self._guard, what)(now)
            finally:
                self._note()
            if what == "stop" and self._guard.mode is Mode.IDLE:
                return "nothing is commanded"
            return SAID[what]

    def restart(self) -> None:
        """The arm is another, or elsewhere: all is forgotten but the counts."""
        with self.lock:
            counts = self._guard.counts
            self._guard = Guard(self.limits, self._watched(False), self.surroundings)
            self._guard.counts, self._seen, self._wanted = counts, None, self.autostart
            self._beat, self.streaming = -np.inf, False
            self._before = self._last = None
            self.changes.append((Mode.IDLE, "restarted"))

    def tolerate(self, **settings: Any) -> None:
        """Other settings from now on; of those that say what motion is allowed, none."""
        with self.lock:
            self.settings = replace(self.settings, **settings)
            self._guard.settings = self._guard.senses.s = self._watched(self.streaming)

    def _note(self) -> None:
        """Collects the changes of mode since the last time."""
        new = []
        for change in reversed(self._guard.transitions):
            if change is self._seen:
                break
            new.append(change)
        for _, _, event, mode in reversed(new):
            reason = self._guard.reason if event in HALTED else None
            self.changes.append((mode, f"{reason.value}: {self._guard.detail}" if reason else event.value))
            self.revised = True
        self._seen = new[0] if new else self._seen

    def facts(self) -> dict[str, object]:
        """What diagnostics tell: mode, reason, detail, and how often each outcome, clamp and reason came up."""
        with self.lock:
            guard = self._guard
            counted = [*Outcome, *Clamp, "reordered", *Reason]
            names = [name.value if isinstance(name, (Outcome, Clamp, Reason)) else name for name in counted]
            idle = guard.mode is Mode.IDLE and not guard.detail
            return {
                "mode": guard.mode.value,
                "reason": guard.reason.value if guard.reason else "",
                "detail": (self._unstarted if self._wanted else "waits for start") if idle else guard.detail,
                "plans": "a stream" if self.streaming else "whole",
                **{name: guard.counts[name] for name in names},
                "readings left out": guard.senses.old,
                "readings of other joints": self.foreign,
            }


SAID = {
    "start": "the arm is held where it is, and plans are taken",
    "stop": "braking; resume takes plans again",
    "resume": "plans are taken again",
    "reset": "the fault is cleared; resume takes plans again",
}
"""What is answered when it worked."""
