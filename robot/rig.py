"""A guard in front of a fake arm, ticked by a fake clock: what tests and examples of the guard are made with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dfplanner_robot.fakes import FakeArm, FakeClock
from dfplanner_robot.safety import Command, Guard, SafetySettings, Surroundings, Verdict
from dfplanner_robot.states import Mode, Outcome
from dfplanner_robot.trajectory import Floats, JointTrajectory, State, from_actions

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits


def three_joints(jerk: float = 500.0) -> JointLimits:
    """Limits of three joints that differ in everything. Imports the arm's environment, and MuJoCo with it."""
    from dfplanner_envs.arm.limits import JointLimits

    return JointLimits(
        ("a", "b", "c"),
        np.array([-2.0, -1.0, -3.0]),
        np.array([2.0, 1.0, 0.5]),
        np.array([2.0, 1.0, 3.0]),
        np.array([20.0, 10.0, 30.0]),
        jerk * np.array([1.0, 0.5, 2.0]),
        np.ones(3),
    )


HOME = np.array([0.1, -0.2, -0.5])
"""A posture of these, in the middle of nothing."""
TICK_S = 0.02


def make_rig(
    limits: JointLimits | None = None, home: ArrayLike = HOME, where: Surroundings | None = None, **settings: Any
) -> Rig:
    """A rig of the three joints at ``HOME``, by default, ticking at 50 Hz; ``settings``: ``SafetySettings``' fields."""
    return Rig(limits or three_joints(), home, SafetySettings(**{"dt_s": TICK_S, **settings}), where)


class Rig:
    """A started guard, its fake arm at ``home`` (J,), and a clock; ``tick`` moves all of them on."""

    def __init__(
        self,
        limits: JointLimits,
        home: ArrayLike,
        settings: SafetySettings | None = None,
        where: Surroundings | None = None,
    ) -> None:
        self.limits, self.clock, self.arm = limits, FakeClock(), FakeArm(limits, home)
        self.guard = Guard(limits, settings, where)
        self.dt_s = self.guard.settings.dt_s
        self.command: Command
        """The last one."""
        self.tick(4)
        self.guard.start(self.clock())

    @property
    def position(self) -> Floats:
        """(J,) commanded."""
        assert self.command.position is not None, "an idle guard commands nothing"
        return self.command.position

    @property
    def velocity(self) -> Floats:
        """(J,) commanded."""
        assert self.command.velocity is not None, "an idle guard commands nothing"
        return self.command.velocity

    def tick(self, n: int = 1, read: bool = True, spoil: dict[str, Any] | None = None) -> Mode:
        """So many ticks; ``read``: whether readings come; ``spoil``: fields of these to replace."""
        for _ in range(n):
            now = self.clock.advance(self.dt_s)
            reading = replace(self.arm.reading(now), **(spoil or {})) if read else None
            self.command = self.guard.tick(now, reading)
            self.arm.step(self.dt_s, self.command.position)
        return self.guard.mode

    def state(self) -> State:
        """What is commanded now."""
        return self.guard.ahead(self.dt_s).curve.at(self.clock())

    def plan(self, speed: float = 0.5, **changes: Any) -> JointTrajectory:
        """From the motion as it is to ``speed`` rad/s, joints taking turns in sign, in 0.3 s and on for 0.3 s."""
        state, j = self.state(), len(self.limits)
        wanted = speed * np.array([1.0, -0.5, 0.5])[np.arange(j) % 3]
        ease = np.minimum(1, np.arange(1, 13) / 6)[:, None]
        actions = (state.v + ease * (wanted - state.v)) / self.limits.velocity
        made = from_actions(
            self.limits.names, self.clock(), state.q, state.v, actions, self.limits.velocity, 0.05, state.a
        )
        return replace(made, **changes)

    def propose(self, plan: JointTrajectory | None = None) -> Verdict:
        """Hands in a plan, or ``plan()``."""
        return self.guard.propose(self.clock(), self.plan() if plan is None else plan)

    def rest(self, most: int = 500) -> Mode:
        """Ticks until the brake is over."""
        for _ in range(most):
            if self.guard.mode is not Mode.BRAKING:
                break
            self.tick()
        return self.guard.mode

    def move(self) -> None:
        """Into motion, at about 0.5 rad/s, by a plan that passes."""
        assert self.propose().outcome is Outcome.PASS
        assert self.tick(15) is Mode.ACTIVE and np.abs(self.arm.v).max() > 0.3

    def rested(self) -> Mode:
        """To rest after a brake; it must then be still, and no limit broken on the way."""
        self.rest()
        before = self.position
        self.tick(3)
        assert np.array_equal(self.position, before), "it moves after the brake"
        assert self.arm.violations(self.dt_s) == []
        return self.guard.mode
