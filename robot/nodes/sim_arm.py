"""The simulated arm without ROS: physics in steps, sensors with faults, and commands from a guard or a trajectory."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import Floats
from dfplanner_robot.checks import Refused, conform
from dfplanner_robot.filling import filled
from dfplanner_robot.nodes.gate import Gate
from dfplanner_robot.nodes.machines import Machine
from dfplanner_robot.settings import JointReading, SafetySettings
from dfplanner_robot.trajectory import SAME_S, Curve, JointTrajectory, since, splice

FADE_S = 0.5
"""Seconds in which the arm is led from where it was held to where the guard, as it starts, has measured it."""
JUMP_RAD = 0.05
"""How much farther than it can come at twice its velocity limit a joint may have to go at once."""
TOLERANCE = 1e-3
"""Share of a limit by which a measured value may be beyond it before that counts."""


@dataclass(frozen=True)
class Sensors:
    """How joints are measured: readings a second, noise (rad, and rad/s), share of readings lost, seconds of latency.

    Raises DFPlannerError on numbers that cannot be.
    """

    rate_hz: float = 125.0
    noise_rad: float = 0.0
    dropped: float = 0.0
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.rate_hz > 0 and self.noise_rad >= 0 and 0 <= self.dropped <= 1 and self.latency_s >= 0):
            raise DFPlannerError(f"{self} came; expected a rate above 0, a share up to 1, and no negative number")


class Follower:
    """What ros2_control's joint_trajectory_controller does: follows the last trajectory, whatever it asks for.

    A new one replaces the last from its stamp on; from the state commanded then, a quintic leads to its first point.
    """

    def __init__(self, machine: Machine, q: Floats) -> None:
        self.limits = machine.limits
        self._settings = SafetySettings(longest_s=np.inf)
        self.hold(q, 0.0)

    def hold(self, q: Floats, now: float) -> None:
        """Stay at ``q`` (J,)."""
        self._path = JointTrajectory(self.limits.names, now, np.zeros(1), q[None].copy(), np.zeros((1, len(q))))
        self._curve = self._path.curve

    def at(self, now: float) -> tuple[Floats, Floats, Floats]:
        """Position, velocity and acceleration (J,) to have."""
        state = self._curve.at(now)
        return state.q, state.v, state.a

    def take(self, now: float, trajectory: JointTrajectory) -> None:
        """Follow it. Raises DFPlannerError, and goes on with the last, if it is malformed, over, or jumps."""
        here = self._curve.at(now).q
        try:
            new, _ = conform(filled(trajectory, here, self.limits, self._settings), self.limits.names, self._settings)
        except Refused as refused:
            raise DFPlannerError(refused.detail) from refused
        new = replace(new, stamp=new.stamp or now)
        if new.velocities is None or new.velocities[-1].any():
            raise DFPlannerError("the trajectory ends in motion; its last point must be at rest")
        at = max(now, new.stamp)
        path = splice(self._path, new, at)
        joins = int(np.searchsorted(path.times, at - path.stamp + SAME_S))
        first = path.times[joins] - (at - path.stamp)
        far = np.abs(path.positions[joins] - self._curve.at(at).q) - 2 * self.limits.velocity * first
        if far.max() > JUMP_RAD:  # as drivers of real arms refuse it
            raise DFPlannerError(f"{new.names[int(far.argmax())]} would have to jump by {far.max():.3f} rad")
        self._path = since(path, now)
        self._curve = self._path.curve


class Simulation:
    """A machine in its world, step by step; from any thread. ``now`` counts from ``begun``, in seconds.

    ``gate``: the guard that commands it, ticked every ``tick_s`` of simulated time; None: whatever ``command`` is given
    is followed. Commands are led over from tick to tick with continuous acceleration, one tick late.
    Readings come no faster than physics is stepped.
    """

    def __init__(
        self, machine: Machine, sensors: Sensors, rng: np.random.Generator, begun: float = 0.0, gate: Gate | None = None
    ) -> None:
        self.machine, self.sensors, self.gate, self._rng = machine, sensors, gate, rng
        self.model = machine.arm.model
        self.dt_s = float(self.model.opt.timestep)
        self.lock = threading.Lock()
        self.begun, self.steps = begun, 0
        self.touching = False
        self.touched, self.violations, self.restarts = 0, 0, 0
        """How often something began to touch, and a joint to be beyond its measured limits; resets."""
        self._beyond = False
        self.per_tick = ticks(self.dt_s)
        self.follower = Follower(machine, machine.arm.rest)
        self._place()

    def _place(self) -> None:
        """Puts everything where it starts."""
        arm = self.machine.arm
        self.data = mujoco.MjData(self.model)  # pyright: ignore
        self.data.qpos[:] = self.machine.start
        mujoco.mj_forward(self.model, self.data)  # pyright: ignore
        self._known = self._contacts()
        self.follower.hold(arm.rest, self.now)
        zero = np.zeros(len(arm.limits))
        self._commanded = (arm.rest.copy(), zero, zero)
        self._segment: Curve | None = None
        self._fade, self._started = np.zeros_like(zero), -np.inf
        self._sent: deque[JointReading] = deque()
        self._latest: JointReading | None = None
        self._due = self.steps * self.dt_s

    @property
    def now(self) -> float:
        """Seconds, as the arm's clock has them."""
        return self.begun + self.steps * self.dt_s

    def restart(self) -> None:
        """Back to the rest posture, at rest; a guard forgets what it held."""
        with self.lock:
            self.restarts += 1
            self._place()
            if self.gate is not None:
                self.gate.restart()

    def command(self, trajectory: JointTrajectory) -> None:
        """A trajectory for the arm without a guard; raises as ``Follower.take``."""
        with self.lock:
            self.follower.take(self.now, trajectory)

    def step(self) -> list[JointReading]:
        """One step of physics; the readings that come out now."""
        with self.lock:
            if self.gate is not None and self.steps % self.per_tick == 0:
                self._tick(self.gate)
            self.steps += 1
            self.machine.drive(self.data, *self._wanted())
            before = self.data.qvel[self.machine.arm.dof].copy()
            mujoco.mj_step(self.model, self.data)  # pyright: ignore
            self._judge(before)
            return self._sense()

    def _tick(self, gate: Gate) -> None:
        """The guard's next command, and the way there from the last."""
        now, last = self.now, self._commanded
        command = gate.tick(now, self._latest)
        if command.position is None or command.velocity is None or command.acceleration is None:
            self._segment = None
            self._commanded = (last[0], np.zeros_like(last[0]), np.zeros_like(last[0]))
            return
        if self._segment is None:  # it starts where the arm was measured, which is not where it is held
            self._fade, self._started = last[0] - command.position, now
        u = min((now - self._started) / FADE_S, 1.0)
        left = self._fade * (1 - u**3 * (10 - 15 * u + 6 * u**2))
        self._commanded = (command.position + left, command.velocity, command.acceleration)
        q, v, a = (np.stack(pair) for pair in zip(last, self._commanded, strict=True))
        self._segment = Curve(self.dt_s * np.array([0, self.per_tick]), q, v, a)

    def _wanted(self) -> tuple[Floats, Floats, Floats]:
        """Position, velocity and acceleration (J,) to have after this step."""
        if self.gate is None:
            return self.follower.at(self.now)
        if self._segment is None:
            return self._commanded
        state = self._segment.at(self.dt_s * ((self.steps - 1) % self.per_tick + 1))
        return state.q, state.v, state.a

    def _contacts(self) -> set[tuple[int, int]]:
        near = self.data.contact if self.data.ncon else ()
        return {(int(c.geom1), int(c.geom2)) for c in near if c.efc_address >= 0}

    def _judge(self, before: Floats) -> None:
        """Counts what touches, but for what did at the start, and joints that are measured beyond their limits."""
        arm, data = self.machine.arm, self.data
        touching = bool(self._contacts() - self._known)
        self.touched += touching and not self.touching
        self.touching = touching
        v = data.qvel[arm.dof]
        push = (v - before) / self.dt_s
        beyond = bool(arm.limits.exceeded(data.qpos[arm.qpos], v, push, tolerance=TOLERANCE).any())
        self.violations += beyond and not self._beyond
        self._beyond = beyond

    def _sense(self) -> list[JointReading]:
        arm, s, now = self.machine.arm, self.sensors, self.now
        if self.steps * self.dt_s >= self._due - 1e-9:
            self._due = max(self._due, (self.steps - 1) * self.dt_s) + 1 / s.rate_hz
            q, v = self.data.qpos[arm.qpos].copy(), self.data.qvel[arm.dof].copy()
            if s.noise_rad:
                q, v = (x + s.noise_rad * self._rng.standard_normal(len(x)) for x in (q, v))
            if not s.dropped or self._rng.random() >= s.dropped:
                self._sent.append(JointReading(arm.limits.names, now, q, v))
        come = []
        while self._sent and self._sent[0].stamp <= now - s.latency_s + 1e-9:
            come.append(self._sent.popleft())
        self._latest = come[-1] if come else self._latest
        return come

    def hand_pose(self) -> tuple[float, Floats, Floats]:
        """When, position (3,) in metres and quaternion (w, x, y, z) of the hand, seen from the base."""
        with self.lock:
            mujoco.mj_kinematics(self.model, self.data)  # pyright: ignore
            return (self.now, *self.machine.hand_pose(self.data))

    def qpos(self) -> Floats:
        """(nq,) where everything is."""
        with self.lock:
            return self.data.qpos.copy()

    def facts(self) -> dict[str, object]:
        """What diagnostics tell."""
        return {
            "touching": self.touching,
            "touched": self.touched,
            "violations": self.violations,
            "resets": self.restarts,
            "steps": self.steps,
        }


def ticks(dt_s: float) -> int:
    """Steps of physics between two ticks of a guard: what is nearest to 10 ms."""
    return max(1, round(0.01 / dt_s))
