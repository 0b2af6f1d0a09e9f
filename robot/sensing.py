"""The checks of measured joints: fresh, whole, within limits, consistent, and where they were commanded to be."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from dfplanner_robot.settings import JointReading, SafetySettings
from dfplanner_robot.states import Reason
from dfplanner_robot.trajectory import Floats

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

Wrong = tuple[Reason, str] | None
"""What is wrong, and a sentence on it."""
WINDOW_S = 0.1
"""Seconds over which velocities are summed and compared with the motion."""
REACTION_S = 0.1
"""Seconds of motion that an arm may lag behind its commands."""


class Senses:
    """The last readings of J joints, in the order of ``limits.names``, and what is wrong with them."""

    def __init__(self, limits: JointLimits, s: SafetySettings) -> None:
        self.limits, self.s, self._ours = limits, s, frozenset(limits.names)
        self.forget()

    def forget(self) -> None:
        """What comes next is the first reading."""
        self.q: Floats | None = None
        """(J,) the last measured positions, if there are any."""
        self.v: Floats | None = None
        self.stamp = -np.inf
        self.good = 0
        """Sound readings since the last that was not."""
        self.old = 0
        """Readings that came after a newer one, and were left out."""
        self.away = -np.inf
        """Until when nobody looked: what the arm said meanwhile may yet come, so that silence is counted from then."""
        self._summed = np.zeros(len(self.limits))
        self._seen: deque[tuple[float, Floats]] = deque()
        self._changed: tuple[float, Floats | None] | None = None
        self._order: tuple[tuple[str, ...], list[int]] | None = None

    def missed(self, now: float) -> None:
        """Until ``now`` nobody looked. That excuses silence once, until a reading comes: ticks may be slow for long."""
        if self.stamp > self.away:
            self.away = now

    def foreign(self, reading: JointReading) -> bool:
        """Whether a reading is of none of our joints: it is somebody else's, such as a gripper's."""
        return self._ours.isdisjoint(reading.names)

    def check(self, now: float, reading: JointReading | None, commanded: tuple[Floats, Floats] | None) -> Wrong:
        """What is wrong at this tick, if anything. ``commanded``: position and velocity (J,) at this time, if any."""
        wrong = None
        if reading is not None and self.foreign(reading):
            reading = None
        if reading is not None and (self.q is None or reading.stamp != self.stamp):
            if reading.stamp < self.stamp and now - self.stamp <= self.s.sensor_timeout_s:
                self.old += 1
            else:
                wrong = self._take(now, reading, commanded)
                self.good = 0 if wrong else self.good + 1
        if wrong is None and now - max(self.stamp, self.away) > self.s.sensor_timeout_s:
            self.good = 0
            late = "no reading came" if self.q is None else f"the last reading is {now - self.stamp:.3f} s old"
            wrong = Reason.SENSOR_AGE, late
        if wrong is None and commanded is not None and self.q is not None:
            wrong = self._beside(*commanded)
        return wrong

    def _take(self, now: float, reading: JointReading, commanded: tuple[Floats, Floats] | None) -> Wrong:
        """Adopts a reading and says what is wrong with it."""
        read = self._arrays(reading)
        if read is None:
            return (
                Reason.SENSOR_FORM,
                f"the reading of {list(reading.names)} is misshapen, lacks joints or is not finite",
            )
        if not reading.stamp <= now + self.s.sensor_ahead_s:
            return Reason.SENSOR_AGE, f"the reading is {reading.stamp - now:.3f} s from the future"
        q, v = read
        if reading.stamp < self.stamp:  # after a silence: the sensor's clock began anew
            self.forget()
        before, speed, dt = self.q, self.v, reading.stamp - self.stamp
        if v is None:
            v = np.zeros_like(q) if before is None else (q - before) / dt
        self.q, self.v, self.stamp = q, v, reading.stamp
        wrong = self._plausible(q, v, before, dt)
        if before is not None and speed is not None:
            self._summed = self._summed + dt * (v + speed) / 2
        self._seen.append((reading.stamp, q - self._summed))
        while reading.stamp - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        wrong = wrong or self._consistent() or self._frozen(q, before, commanded)
        if wrong:  # told once; what comes is compared with this
            self._seen.clear()
        return wrong

    def _arrays(self, reading: JointReading) -> tuple[Floats, Floats | None] | None:
        """Positions and velocities in our order, or None if they cannot be had."""
        names = tuple(reading.names)
        if self._order is None or self._order[0] != names:
            if len(set(names)) != len(names) or not set(self.limits.names) <= set(names):
                return None
            self._order = names, [names.index(name) for name in self.limits.names]
        try:
            q = np.asarray(reading.positions, np.float64)
            v = None if reading.velocities is None else np.asarray(reading.velocities, np.float64)
        except (TypeError, ValueError):
            return None
        if q.shape != (len(names),) or (v is not None and v.shape != q.shape):
            return None
        q, v = q[self._order[1]], None if v is None else v[self._order[1]]
        finite = np.isfinite(q).all() and (v is None or np.isfinite(v).all()) and np.isfinite(reading.stamp)
        return (q, v) if finite else None

    def _plausible(self, q: Floats, v: Floats, before: Floats | None, dt: float) -> Wrong:
        s, limits = self.s, self.limits
        over = np.maximum(limits.lower - q, q - limits.upper)
        if over.max() > s.sensor_over_rad:
            return Reason.SENSOR_LIMITS, f"{self._worst(over)} is {over.max():.3f} rad beyond its end"
        if before is not None:
            jump = np.abs(q - before) - limits.velocity * dt
            if jump.max() > s.sensor_jump_rad:
                return Reason.SENSOR_JUMP, f"{self._worst(jump)} moved {np.abs(q - before).max():.3f} rad in {dt:.3f} s"
        fast = np.abs(v) / limits.velocity - 1
        if fast.max() > s.sensor_over_share:
            return Reason.SENSOR_LIMITS, f"{self._worst(fast)} has {1 + fast.max():.2f} times its velocity limit"
        return None

    def _consistent(self) -> Wrong:
        """Whether the velocities of the last 0.1 s add up to the motion."""
        drift = np.abs(self._seen[-1][1] - self._seen[0][1])
        if drift.max() > self.s.sensor_drift_rad:
            return (
                Reason.SENSOR_VELOCITY,
                f"{self._worst(drift)} is {drift.max():.3f} rad from the sum of its velocities",
            )
        return None

    def _frozen(self, q: Floats, before: Floats | None, commanded: tuple[Floats, Floats] | None) -> Wrong:
        """Whether the readings repeat while the commands move."""
        place = None if commanded is None else commanded[0]
        if self._changed is None or before is None or (q != before).any():
            self._changed = self.stamp, place
            return None
        since, then = self._changed
        if place is None or then is None:
            self._changed = since, place
            return None
        if self.stamp - since > self.s.frozen_s and np.abs(place - then).max() > self.s.frozen_rad:
            return Reason.SENSOR_FROZEN, f"the same positions for {self.stamp - since:.3f} s of motion"
        return None

    def _beside(self, position: Floats, velocity: Floats) -> Wrong:
        assert self.q is not None
        off = np.abs(self.q - position) - REACTION_S * np.abs(velocity)
        if off.max() > self.s.tracking_rad:
            return Reason.TRACKING, f"{self._worst(off)} is {np.abs(self.q - position).max():.3f} rad from its command"
        return None

    def _worst(self, by: Floats) -> str:
        """The joint with the largest of J numbers."""
        return self.limits.names[int(by.argmax())]
