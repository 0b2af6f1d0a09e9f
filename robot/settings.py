"""The guard's numbers, and the words it speaks: readings in, commands and verdicts out."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dfplanner.types import DFPlannerError
from dfplanner_robot.states import Clamp, Mode, Outcome, Reason
from dfplanner_robot.trajectory import Floats


@dataclass(frozen=True)
class SafetySettings:
    """How much the guard tolerates. Every number is at least 0; raises DFPlannerError otherwise."""

    dt_s: float = 0.01
    """Seconds between ticks."""
    velocity_share: float = 0.95
    acceleration_share: float = 0.45
    jerk_share: float = 1.0
    """Of the arm's limits, what commands may use."""
    inset_rad: float = 0.02
    """How far before a joint's end commands stop."""
    max_slowdown: float = 2.0
    """A plan that is too fast may be made so many times as slow."""
    clip_rad: float = 0.02
    """A plan's points may be clipped by so much."""
    jump_rad: float = 0.1
    """Between where the arm is and where a plan begins, at rest; in motion 0.1 s of its velocity are added."""
    blends_s: tuple[float, ...] = (0.02, 0.1, 0.25)
    """Times within which a plan is joined to the motion; the first that keeps the limits is taken."""
    late_s: float = 0.3
    """Age of a plan's stamp: latency."""
    ahead_s: float = 0.5
    """How far in the future a plan may begin."""
    longest_s: float = 30.0
    """How long a plan may last."""
    plan_timeout_s: float | None = 0.5
    """Without a new plan for so long an arm that follows one brakes; None: plans are whole, followed to their end."""
    heartbeat_timeout_s: float | None = None
    """The same for the planner's heartbeat; None: it has none."""
    step_rad: float = 0.03
    """Postures are tested for collisions so densely along the way; a clearance must cover half a step's motion."""
    gap_s: float = 0.05
    """Between two ticks, and between the time and the ticks counted, at most."""
    sensor_timeout_s: float = 0.08
    """Age of the last reading."""
    sensor_ahead_s: float = 0.02
    """A reading's stamp may be in the future by so much."""
    sensor_jump_rad: float = 0.05
    """Between two readings, beside what the velocity limit allows."""
    sensor_drift_rad: float = 0.05
    """Between the measured motion of the last 0.1 s and the sum of its measured velocities."""
    sensor_over_rad: float = 0.01
    sensor_over_share: float = 0.1
    """Measured beyond a position limit, and beyond a velocity limit as a share of it."""
    frozen_s: float = 0.06
    frozen_rad: float = 0.002
    """Readings that repeat bit by bit for so long, while commands moved a joint by so much."""
    tracking_rad: float = 0.15
    """Between measured and commanded position, at rest; in motion 0.1 s of its velocity are added."""
    resume_after_s: float | None = None
    """An arm that stopped for a plan's fault resumes by itself after so long; None: it waits for the operator."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else (value,)
            if not values or any(v is not None and not v >= 0 for v in values):
                raise DFPlannerError(f"{field.name} is {value}; expected a number of at least 0")
        if not self.dt_s > 0 or not self.step_rad > 0 or self.max_slowdown < 1:
            raise DFPlannerError("dt_s and step_rad must be above 0, and max_slowdown at least 1")


@dataclass(frozen=True, eq=False)
class JointReading:
    """What a ``sensor_msgs/JointState`` holds, unchecked: positions (J,) in rad, velocities (J,) in rad/s or None."""

    names: tuple[str, ...]
    stamp: float
    positions: Floats
    velocities: Floats | None = None


@dataclass(frozen=True, eq=False)
class Verdict:
    """What became of a plan. ``detail``: a sentence, for a BRAKE."""

    outcome: Outcome
    clamps: tuple[Clamp, ...] = ()
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Command:
    """What the arm is to do at ``stamp``: (J,) in rad and its derivatives by seconds; None while IDLE."""

    mode: Mode
    outcome: Outcome
    stamp: float
    position: Floats | None = None
    velocity: Floats | None = None
    acceleration: Floats | None = None
    clamps: tuple[Clamp, ...] = ()
    """What was changed on the plan that is followed."""
    reason: Reason | None = None
    """Why it brakes or waits."""
