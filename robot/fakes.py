"""Fakes as library code: a clock, an arm that follows commands late, a plan stream, and a seeded injector of faults."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from dfplanner.types import DFPlannerError
from dfplanner_robot.core import Answer
from dfplanner_robot.settings import JointReading
from dfplanner_robot.trajectory import Floats, JointTrajectory, from_actions

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Time passes, or with a negative number goes back; the new time."""
        self.now += seconds
        return self.now


class FakeArm:
    """J joints that follow position commands with a first-order lag, and a record of what they were commanded.

    ``lag_s``: time constant; ``noise``: standard deviations of readings, rad and rad/s, drawn from ``rng``.
    """

    def __init__(
        self,
        limits: JointLimits,
        q: ArrayLike,
        lag_s: float = 0.02,
        noise: tuple[float, float] = (0.0, 0.0),
        rng: np.random.Generator | None = None,
    ) -> None:
        self.limits, self.lag_s, self.noise = limits, lag_s, noise
        self.q, self.v = np.array(q, np.float64), np.zeros(len(limits))
        self.commands: list[Floats] = []
        self._rng = rng or np.random.default_rng(0)

    def step(self, dt_s: float, position: ArrayLike | None) -> None:
        """So many seconds with a command (J,); None is none, and it stays."""
        if position is None:
            self.v = np.zeros_like(self.q)
            return
        command = np.array(position, np.float64)
        self.commands.append(command)
        share = 1.0 if self.lag_s == 0 else 1 - np.exp(-dt_s / self.lag_s)
        moved = share * (command - self.q)
        self.q, self.v = self.q + moved, moved / dt_s

    def reading(self, stamp: float) -> JointReading:
        """What its sensors tell."""
        q, v = (x + s * self._rng.standard_normal(len(x)) for x, s in zip((self.q, self.v), self.noise, strict=True))
        return JointReading(self.limits.names, stamp, q, v)

    def violations(self, dt_s: float, tolerance: float = 1e-4) -> list[str]:
        """Where its commands broke its limits, by finite differences, a sentence each; at first it was at rest."""
        return violations(self.commands, self.limits, dt_s, tolerance)


def violations(commands: Iterable[ArrayLike], limits: JointLimits, dt_s: float, tolerance: float = 1e-4) -> list[str]:
    """Where commands (N, J), ``dt_s`` seconds apart, broke limits, by their finite differences; before them is rest."""
    q = np.array([np.asarray(c, np.float64) for c in commands]).reshape(-1, len(limits))
    if not len(q):
        return []
    q = np.concatenate([np.repeat(q[:1], 3, 0), q])
    found, value = [], q
    for order, name in enumerate(("position", "velocity", "acceleration", "jerk")):
        value = np.diff(value, axis=0) / dt_s if order else value
        beyond = limits.exceeded(**{name: value}, tolerance=tolerance)
        for i, j in np.argwhere(beyond)[:5]:
            found.append(f"{name} of {limits.names[j]} at command {i + order - 3}: {value[i, j]:.6g}")
    return found


class FakePlanner:
    """Smooth random motion within limits, as a stream of overlapping plans: chunks of one long curve, ends at rest.

    A plan at time t is stamped t, begins where the last one is then, and holds ``actions`` steps of ``dt_s`` seconds.
    ``share``: how much of the velocity limits it uses.
    """

    def __init__(
        self,
        limits: JointLimits,
        rng: np.random.Generator,
        share: float = 0.3,
        dt_s: float = 0.05,
        actions: int = 12,
    ) -> None:
        self.limits, self.share, self.dt_s, self.actions, self._rng = limits, share, dt_s, actions, rng
        self.last: JointTrajectory | None = None
        self._drive = np.zeros(len(limits))

    def forget(self) -> None:
        """The next plan begins where the arm is."""
        self.last = None

    def plan(self, now: float, q: ArrayLike) -> JointTrajectory:
        """A plan from where the last one is ``now``, or from rest at ``q`` (J,)."""
        state = None if self.last is None or self.last.end <= now else self.last.curve.at(now)
        place, speed, push = (
            (np.asarray(q, np.float64), *(np.zeros(len(self.limits)),) * 2) if state is None else state[:3]
        )
        middle = (self.limits.lower + self.limits.upper) / 2
        half = (self.limits.upper - self.limits.lower) / 2
        # A drive that changes now and then, and a pull to the middle.
        top = self.share * self.limits.velocity
        new = self._rng.random(len(self.limits)) < 0.15
        self._drive = np.where(new, self._rng.uniform(-1, 1, len(self.limits)), self._drive)
        wanted = np.clip(self._drive - 2 * ((place - middle) / half) ** 3, -1, 1) * top
        gentle = 0.3 * self.limits.acceleration * self.actions / 2 * self.dt_s
        wanted = speed + np.clip(wanted - speed, -gentle, gentle)
        ease = (1 - np.cos(np.pi * np.minimum(1, 2 * np.arange(1, self.actions + 1) / self.actions)))[:, None] / 2
        speeds = speed + ease * (wanted - speed)
        actions = speeds / self.limits.velocity
        self.last = from_actions(self.limits.names, now, place, speed, actions, self.limits.velocity, self.dt_s, push)
        return self.last


class FakeChunks:
    """A planner of action chunks for the core, without a model: straight to a joint goal (J,), gently.

    ``share``: of the velocity limits; observations end with q and v; ``actions`` of ``dt_s`` seconds each.
    """

    def __init__(self, limits: JointLimits, share: float = 0.3, dt_s: float = 0.05, actions: int = 16) -> None:
        self.limits, self.share, self.dt_s, self.actions = limits, share, dt_s, actions
        self._last = np.zeros((0, len(limits)))
        self.asked: list[tuple[int, int | None]] = []
        """How many actions were committed and elapsed at each plan."""

    def plan(self, observation: Floats, goal: Floats, committed: int, elapsed: int | None) -> Answer:
        """See ``ChunkPlanner``."""
        self.asked.append((committed, elapsed))
        q, v = np.split(np.array(observation[-2 * len(self.limits) :]), 2)
        held = self._last[elapsed : elapsed + committed] if elapsed is not None else self._last[:0]
        top, made = self.share * self.limits.velocity, []
        for i in range(self.actions):
            wanted = np.clip(2.0 * (goal - q), -top, top)
            change = 2.0 * self.dt_s * top
            new = held[i] * self.limits.velocity if i < len(held) else v + np.clip(wanted - v, -change, change)
            q, v = q + self.dt_s * (v + new) / 2, new
            made.append(v / self.limits.velocity)
        self._last = np.array(made)
        return Answer(self._last.copy())


@dataclass(frozen=True)
class Fault:
    """A fault, and whether the arm must brake for it."""

    kind: str
    brakes: bool = True


KINDS: dict[str, Fault] = {
    kind: Fault(kind, brakes)
    for kind, brakes in {
        "plan: NaN": True,
        "plan: infinity": True,
        "plan: wild chunk": True,
        "plan: jump": True,
        "plan: too fast": True,
        "plan: beyond a joint's end": True,
        "plan: joints permuted": False,
        "plan: joint renamed": True,
        "plan: joint missing": True,
        "plan: wrong length": True,
        "plan: times out of sequence": True,
        "plan: no velocities": True,
        "plan: empty": True,
        "plan: late": True,
        "plan: far ahead": True,
        "plan: duplicate": True,
        "plan: out of order": True,
        "planner silent": True,
        "sensor frozen": True,
        "sensor silent": True,
        "sensor NaN": True,
        "sensor jump": True,
        "sensor beyond a limit": True,
        "sensor too fast": True,
        "sensor joint missing": True,
        "sensor permuted": False,
        "clock back": True,
        "clock ahead": True,
    }.items()
}
"""The injector's faults by name."""


class FaultInjector:
    """Lets plans, readings, heartbeats and the clock through, and at ``begin`` spoils one of them until ``end``.

    Plan faults spoil one plan, sensor faults and silences last, a clock jumps once. Seeded by ``rng``.
    """

    def __init__(self, limits: JointLimits, rng: np.random.Generator, kinds: Sequence[str] = tuple(KINDS)) -> None:
        if unknown := set(kinds) - KINDS.keys():
            raise DFPlannerError(f"faults {sorted(unknown)} are not known; known ones are {', '.join(KINDS)}")
        self.limits, self.kinds, self._rng = limits, list(kinds), rng
        self.kind: str | None = None
        self._pending = False
        self._frozen: JointReading | None = None
        self._before: JointTrajectory | None = None

    def begin(self, kind: str | None = None) -> Fault:
        """The fault that now begins: the given one, or any."""
        self.kind = kind or str(self._rng.choice(self.kinds))
        self._pending, self._frozen = True, None
        return KINDS[self.kind]

    def end(self) -> None:
        """All is well again."""
        self.kind, self._pending, self._frozen = None, False, None

    def heartbeat(self) -> bool:
        """Whether the planner's heartbeat comes through."""
        return self.kind != "planner silent"

    def clock(self, clock: FakeClock) -> None:
        """Makes the clock jump, if that is the fault."""
        if self._pending and self.kind in ("clock back", "clock ahead"):
            self._pending = False
            clock.advance(float(self._rng.uniform(0.1, 5)) * (1 if self.kind == "clock ahead" else -1))

    def reading(self, reading: JointReading) -> JointReading | None:
        """The reading as it comes through."""
        joint, q = int(self._rng.integers(len(self.limits))), np.array(reading.positions)
        v = None if reading.velocities is None else np.array(reading.velocities)
        if self.kind == "sensor silent":
            return None
        if self.kind == "sensor frozen":
            self._frozen = self._frozen or reading
            return replace(self._frozen, stamp=reading.stamp)
        if self.kind == "sensor NaN":
            q[joint] = np.nan
        elif self.kind == "sensor jump":
            q[joint] += 0.4 * (1 if q[joint] < (self.limits.lower + self.limits.upper)[joint] / 2 else -1)
        elif self.kind == "sensor beyond a limit":
            q[joint] = self.limits.upper[joint] + 0.05
        elif self.kind == "sensor too fast" and v is not None:
            v[joint] = 1.5 * self.limits.velocity[joint]
        elif self.kind == "sensor joint missing":
            return replace(reading, names=reading.names[1:], positions=q[1:], velocities=None if v is None else v[1:])
        elif self.kind == "sensor permuted":
            order = self._rng.permutation(len(q))
            names = tuple(reading.names[i] for i in order)
            return replace(reading, names=names, positions=q[order], velocities=None if v is None else v[order])
        return replace(reading, positions=q, velocities=v)

    def plan(self, plan: JointTrajectory) -> list[JointTrajectory]:
        """What comes through of a plan: nothing, it, something else, or several."""
        before, self._before = self._before, plan
        if self.kind == "planner silent":
            return []
        if not self._pending or not (self.kind or "").startswith("plan: "):
            return [plan]
        self._pending = False
        return self._spoiled(plan, before)

    def _spoiled(self, plan: JointTrajectory, before: JointTrajectory | None) -> list[JointTrajectory]:
        rng, names = self._rng, plan.names
        q, t = plan.positions.copy(), plan.times
        v = np.zeros_like(q) if plan.velocities is None else plan.velocities.copy()
        i, j = int(rng.integers(len(q))), int(rng.integers(len(names)))
        sign = float(rng.choice([-1.0, 1.0]))
        plain = replace(plan, accelerations=None)
        order = np.roll(np.arange(len(names)), 1 + int(rng.integers(len(names) - 1)))
        later = replace(plan, stamp=plan.stamp + 1e-3)
        if self.kind in ("plan: NaN", "plan: infinity"):
            (q if rng.random() < 0.5 else v)[i, j] = np.nan if self.kind == "plan: NaN" else sign * np.inf
        elif self.kind == "plan: wild chunk":
            q, v = rng.uniform(-10, 10, q.shape), rng.uniform(-10, 10, v.shape)
        elif self.kind == "plan: jump":
            q[:, j] += 0.5 * (1 if q[0, j] < (self.limits.lower + self.limits.upper)[j] / 2 else -1)
        elif self.kind == "plan: too fast":
            speed = sign * rng.uniform(4, 10) * self.limits.velocity[j]
            v[1:, j], q[:, j] = speed, q[0, j] + speed * t
        elif self.kind == "plan: beyond a joint's end":
            q[-1, j] = self.limits.upper[j] + rng.uniform(0.1, 1)
        elif self.kind == "plan: times out of sequence":
            t = t[::-1].copy()
        many: dict[str, list[JointTrajectory]] = {
            "plan: joints permuted": [
                replace(plain, names=tuple(names[k] for k in order), positions=q[:, order], velocities=v[:, order])
            ],
            "plan: joint renamed": [replace(plan, names=("elbow", *names[1:]))],
            "plan: joint missing": [replace(plain, names=names[1:], positions=q[:, 1:], velocities=v[:, 1:])],
            "plan: wrong length": [replace(plan, positions=q[:, 1:])],
            "plan: no velocities": [replace(plain, velocities=None)],
            "plan: empty": [replace(plain, times=t[:0], positions=q[:0], velocities=v[:0])],
            "plan: late": [replace(plan, stamp=plan.stamp - rng.uniform(0.4, 5))],
            "plan: far ahead": [replace(plan, stamp=plan.stamp + rng.uniform(0.6, 5))],
            "plan: duplicate": [plan, plan],
            "plan: out of order": [plan, replace(before, stamp=plan.stamp - 0.01) if before else later, plan],
        }
        return many.get(self.kind or "", [replace(plain, times=t, positions=q, velocities=v)])
