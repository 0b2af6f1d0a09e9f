"""A drill: the guard, a fake arm, a planner that moves it, one fault after another, and what came of each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from dfplanner.types import DFPlannerError
from dfplanner_robot.fakes import KINDS, FakeArm, FakeClock, FakePlanner, FaultInjector, violations
from dfplanner_robot.safety import Command, Guard, SafetySettings, Surroundings
from dfplanner_robot.states import Mode, Reason

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

MOVES = (Mode.READY, Mode.ACTIVE)


@dataclass(frozen=True)
class Survived:
    """What came of one fault."""

    kind: str
    reason: Reason | None
    """Why it braked; None if it did not."""
    to_brake_s: float
    """From the fault to the first command of the brake, in control time."""
    to_rest_s: float
    """From there to rest."""
    mode: Mode
    """How the arm waits then."""
    speed: float
    """The largest speed of a joint at the fault, in rad/s: whether there was anything to brake."""


@dataclass(frozen=True, eq=False)
class Drilled:
    """All faults of a drill, and where the commands broke a limit: nowhere, it is hoped."""

    faults: tuple[Survived, ...]
    violations: tuple[str, ...]
    ticks: int

    def table(self) -> str:
        """Fault → what the arm did → time to brake, as a Markdown table."""
        rows = [
            "| fault | n | what the arm did | brake begins after | at rest after |",
            "| --- | --- | --- | --- | --- |",
        ]
        for kind in KINDS:
            some = [f for f in self.faults if f.kind == kind]
            braked = [f for f in some if f.reason is not None]
            if not some:
                continue
            if not braked:
                rows.append(f"| {kind} | {len(some)} | followed it | - | - |")
                continue
            did = ", ".join(sorted({f"{f.reason.value} → {f.mode.value}" for f in braked if f.reason}))
            begins, rests = (1e3 * max(x) for x in ([f.to_brake_s for f in braked], [f.to_rest_s for f in braked]))
            rows.append(f"| {kind} | {len(some)} | {did} | ≤ {begins:.0f} ms | ≤ {rests:.0f} ms |")
        return "\n".join(rows)


class _Loop:
    """The guard's loop at its rate, with everything fake but the guard."""

    def __init__(
        self, limits: JointLimits, home: ArrayLike, rng: np.random.Generator, s: SafetySettings, where: Surroundings
    ) -> None:
        self.clock, self.arm = FakeClock(), FakeArm(limits, home)
        self.guard, self.planner = Guard(limits, s, where), FakePlanner(limits, rng)
        self.injector = FaultInjector(limits, rng)
        self.dt, self.since_plan, self.ticks = s.dt_s, 0, 0

    def tick(self, plans: bool = True, plan_now: bool = False) -> Command:
        """One tick; a plan every 0.1 s."""
        now = self.clock.advance(self.dt)
        self.injector.clock(self.clock)
        now, guard = self.clock.now, self.guard
        if self.injector.heartbeat():
            guard.heartbeat(now)
        self.since_plan += 1
        if plans and guard.mode in MOVES and (plan_now or self.since_plan * self.dt >= 0.1 - 1e-9):
            self.since_plan = 0
            for plan in self.injector.plan(self.planner.plan(now, self.arm.q)):
                guard.propose(now, plan)
        command = guard.tick(now, self.injector.reading(self.arm.reading(now)))
        self.arm.step(self.dt, command.position)
        self.ticks += 1
        return command

    def ready(self) -> None:
        """All is well again: readings are sound, and the operator has done what is needed."""
        self.injector.end()
        for _ in range(5):
            self.tick(plans=False)
        if self.guard.mode is Mode.FAULT:
            self.guard.reset(self.clock.now)
        if self.guard.mode is Mode.STOPPED:
            self.guard.resume(self.clock.now)
        if self.guard.mode is not Mode.ACTIVE:
            self.planner.forget()

    def suffer(self, kind: str | None, moving: int) -> Survived:
        """One fault after so many ticks of motion; the arm braked, or goes on, when it returns."""
        for _ in range(moving):
            self.tick()
        fault = self.injector.begin(kind)
        speed = float(np.abs(self.arm.v).max())
        for k in range(25):
            command = self.tick(plan_now=k == 0)
            if command.mode not in MOVES or (command.mode is Mode.READY and self.guard.reason is not None):
                break
        else:
            return Survived(fault.kind, None, np.inf, np.inf, self.guard.mode, speed)
        reason, waited = self.guard.reason, k
        rest = 0
        while self.guard.mode is Mode.BRAKING:
            self.tick(plans=False)
            rest += 1
            if rest > 1000:
                raise DFPlannerError(f"after {fault.kind!r} the brake did not end within 1000 ticks")
        return Survived(fault.kind, reason, waited * self.dt, rest * self.dt, self.guard.mode, speed)


def drill(
    limits: JointLimits,
    home: ArrayLike,
    faults: int = 1000,
    seed: int = 0,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    settings: SafetySettings | None = None,
    surroundings: Surroundings | None = None,
) -> Drilled:
    """So many faults, the kinds in turn, on an arm that begins at ``home`` (J,) and moves at random.

    The same seed is the same drill. The planner has a heartbeat at each tick, missed for 0.08 s at most. Raises
    DFPlannerError where a brake does not end.
    """
    rng = np.random.default_rng(seed)
    s = settings or SafetySettings(dt_s=0.02, heartbeat_timeout_s=0.08)
    loop = _Loop(limits, home, rng, s, surroundings or Surroundings())
    for _ in range(5):
        loop.tick(plans=False)
    loop.guard.start(loop.clock.now)
    found = []
    for i in range(faults):
        loop.ready()
        found.append(loop.suffer(kinds[i % len(kinds)], int(rng.integers(8, 20))))
    broken = violations(loop.arm.commands, limits, s.dt_s)
    return Drilled(tuple(found), tuple(broken), loop.ticks)


def main(arguments: Sequence[str] | None = None) -> int:
    """The drill on the bundled arm's limits, its table printed; 1 if a command broke a limit."""
    from dfplanner_envs.arm import reach_arm

    parser = argparse.ArgumentParser("dfplanner_robot.drill", description=main.__doc__)
    parser.add_argument("--faults", type=int, default=1000, help="how many, the kinds in turn")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    given = parser.parse_args(arguments)
    arm = reach_arm()
    drilled = drill(arm.limits, arm.rest, given.faults, given.seed)
    print(drilled.table())
    print(f"\n{len(drilled.violations)} violations in {drilled.ticks} ticks")
    for line in drilled.violations:
        print(line)
    return int(bool(drilled.violations))


if __name__ == "__main__":
    raise SystemExit(main())
