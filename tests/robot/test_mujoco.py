"""The guard before the MuJoCo arm: measured limits hold, and nothing is touched, whatever a careless planner wants."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from dfplanner_envs.arm.collision import CollisionChecker
from dfplanner_envs.arm.task import reach_task
from dfplanner_robot.core import ArmCore
from dfplanner_robot.fakes import FakeChunks, FakeClock, FakePlanner
from dfplanner_robot.safety import Guard, JointReading, Mode, Outcome, Reason, SafetySettings, Surroundings
from dfplanner_robot.trajectory import JointTrajectory

TASK = reach_task()
ARM = TASK.arm
DT = 0.01


class Simulated:
    """The arm with its servos, and the guard in front of it, at 100 Hz."""

    def __init__(self, where: Surroundings | None = None) -> None:
        self.clock, self.model = FakeClock(), ARM.model
        self.data = mujoco.MjData(self.model)  # pyright: ignore
        self.data.qpos[ARM.qpos] = ARM.rest
        self.command(ARM.rest, np.zeros(7))
        mujoco.mj_forward(self.model, self.data)  # pyright: ignore
        self.guard = Guard(ARM.limits, SafetySettings(dt_s=DT, resume_after_s=0.05, tracking_rad=0.05), where)
        self.violated = self.touched = 0
        for _ in range(4):
            self.tick()
        self.guard.start(self.clock())

    def command(self, q: np.ndarray, v: np.ndarray) -> None:
        self.data.ctrl[ARM.position], self.data.ctrl[ARM.velocity] = q, v

    def reading(self) -> JointReading:
        q, v = self.data.qpos[ARM.qpos].copy(), self.data.qvel[ARM.dof].copy()
        return JointReading(ARM.limits.names, self.clock(), q, v)

    def tick(self) -> None:
        command = self.guard.tick(self.clock.advance(DT), self.reading())
        steps = round(DT / self.model.opt.timestep)
        old = self.data.ctrl[ARM.position].copy(), self.data.ctrl[ARM.velocity].copy()
        for k in range(1, steps + 1):
            # A controller interpolates: a command held for a tick would be a step for the servos.
            if command.position is not None and command.velocity is not None:
                new = command.position, command.velocity
                self.command(*(x + (y - x) * k / steps for x, y in zip(old, new, strict=True)))
            before = self.data.qvel[ARM.dof].copy()
            mujoco.mj_step(self.model, self.data)  # pyright: ignore
            v = self.data.qvel[ARM.dof]
            push = (v - before) / self.model.opt.timestep
            self.violated += int(ARM.limits.exceeded(self.data.qpos[ARM.qpos], v, push, tolerance=1e-3).any())
            self.touched += int(self.data.ncon > 0)


def test_a_careless_planner_breaks_nothing():
    """Random fast motion among the obstacles, planned without a thought for them."""
    simulated = Simulated(Surroundings(CollisionChecker(ARM, 0.02, 0.005)))
    guard, planner = simulated.guard, FakePlanner(ARM.limits, np.random.default_rng(5), share=0.5)
    for k in range(400):
        if guard.mode is not Mode.ACTIVE:
            planner.forget()
        if k % 10 == 0:
            guard.propose(simulated.clock(), planner.plan(simulated.clock(), simulated.reading().positions))
        simulated.tick()
    assert simulated.violated == simulated.touched == 0
    assert guard.counts["pass"] + guard.counts["clamp"] > 20
    assert guard.counts["collision"] + guard.counts["blocked"] > 0  # it did try
    assert guard.counts["tracking"] == guard.counts["sensor_limits"] == 0


def test_straight_into_the_pillar_is_refused():
    guard = Simulated(Surroundings(CollisionChecker(ARM, 0.01))).guard
    there = ARM.rest + np.array([0, 0.75 + 0.2, 0, 0.35, 0, 0, 0])
    assert not TASK.checker.free(there)
    q, n = np.linspace(ARM.rest, there, 31), 31
    v = np.gradient(q, 0.1, axis=0)
    v[0] = v[-1] = 0
    plan = JointTrajectory(ARM.limits.names, 100.05, 0.1 * np.arange(n, dtype=np.float64), q, v)
    verdict = guard.propose(100.05, plan)
    assert (verdict.outcome, verdict.reason) == (Outcome.BRAKE, Reason.COLLISION)
    box = np.array([[-2.0, -2.0, 0.3], [2.0, 2.0, 2.0]])
    fenced = Simulated(Surroundings(None, TASK.chain.hand, box)).guard
    assert fenced.propose(100.05, replace(plan)).reason is Reason.WORKSPACE


def test_core_and_guard_bring_the_arm_to_a_goal():
    simulated = Simulated(Surroundings(CollisionChecker(ARM, 0.01)))
    core, planner = ArmCore(ARM.limits, TASK.chain.hand), FakeChunks(ARM.limits)
    goal = ARM.rest + np.array([0.5, 0.2, -0.3, 0.3, 0.2, 0.2, 0.5])
    core.set_goal(goal)
    for _ in range(450):
        now = simulated.clock()
        core.read(simulated.reading())
        if trajectory := core.step(now, planner):
            simulated.guard.propose(now, trajectory)
        simulated.tick()
    assert np.abs(simulated.data.qpos[ARM.qpos] - goal).max() < 0.02
    assert simulated.violated == simulated.touched == 0 and simulated.guard.counts["brake"] == 0
    observation = core.observation(simulated.clock())
    assert observation is not None and observation.shape == (17,)
