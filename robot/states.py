"""What the guard can be doing, what happens to it, and where that leads: the whole state machine, as a table."""

from __future__ import annotations

from enum import Enum


class Mode(str, Enum):
    """What the guard is doing."""

    IDLE = "idle"
    """Commands nothing."""
    READY = "ready"
    """Holds still and waits for a plan."""
    ACTIVE = "active"
    """Follows a plan."""
    BRAKING = "braking"
    """On the way to rest; no plan is taken."""
    STOPPED = "stopped"
    """Holds still until ``resume``."""
    FAULT = "fault"
    """Holds still until ``reset``, which needs a sound arm."""


class Event(str, Enum):
    """What moves the guard from one mode to another."""

    START = "start"
    """The operator starts it; the joints are read, at rest and within their limits."""
    PLAN = "plan"
    """A plan passed, or was clamped."""
    ARRIVED = "arrived"
    """The plan ended at rest."""
    HALT = "halt"
    """Any reason to brake."""
    RESTED = "rested"
    """Braked to rest, for reasons that pass by themselves."""
    RESTED_STOPPED = "rested, stopped"
    """Braked to rest, for a reason that asks for ``resume``."""
    RESTED_FAULT = "rested, fault"
    """Braked to rest, for a reason that asks for ``reset``."""
    FAIL = "fail"
    """A reason that asks for ``reset`` while at rest already."""
    RESUME = "resume"
    """The operator, or the wait that the settings allow."""
    RESET = "reset"
    """The operator; readings are sound and agree with what is held."""
    RELEASE = "release"
    """The operator ends the guard's command of the arm."""


TABLE: dict[tuple[Mode, Event], Mode] = {
    (Mode.IDLE, Event.START): Mode.READY,
    (Mode.READY, Event.PLAN): Mode.ACTIVE,
    (Mode.ACTIVE, Event.PLAN): Mode.ACTIVE,
    (Mode.ACTIVE, Event.ARRIVED): Mode.READY,
    (Mode.READY, Event.HALT): Mode.BRAKING,
    (Mode.ACTIVE, Event.HALT): Mode.BRAKING,
    (Mode.BRAKING, Event.HALT): Mode.BRAKING,
    (Mode.BRAKING, Event.RESTED): Mode.READY,
    (Mode.BRAKING, Event.RESTED_STOPPED): Mode.STOPPED,
    (Mode.BRAKING, Event.RESTED_FAULT): Mode.FAULT,
    (Mode.STOPPED, Event.FAIL): Mode.FAULT,
    (Mode.STOPPED, Event.RESUME): Mode.READY,
    (Mode.FAULT, Event.RESET): Mode.STOPPED,
    (Mode.READY, Event.RELEASE): Mode.IDLE,
    (Mode.STOPPED, Event.RELEASE): Mode.IDLE,
    (Mode.FAULT, Event.RELEASE): Mode.IDLE,
}
"""(mode, event) → mode; what is not here cannot happen."""


class Outcome(str, Enum):
    """What becomes of a plan, and of a tick: always exactly one."""

    PASS = "pass"
    CLAMP = "clamp"
    BRAKE = "brake"


class Clamp(str, Enum):
    """What was changed on a plan so that it could pass."""

    SLOWED = "slowed"
    """Uniformly, for velocity, acceleration or jerk."""
    POSITION = "clipped"
    """Points a little beyond a joint's end were put on it."""
    BLENDED = "blended"
    """It began elsewhere, or with another velocity, than the arm is; the difference is led over."""


class Reason(str, Enum):
    """Why the arm brakes: the checks by name. Each has a counter of that name."""

    NOT_FINITE = "not_finite"
    FORM = "form"
    NAMES = "names"
    ORDER = "order"
    LATE = "late"
    AHEAD = "ahead"
    JUMP = "jump"
    POSITION = "position"
    SPEED = "speed"
    WORKSPACE = "workspace"
    COLLISION = "collision"
    NOT_READY = "not_ready"
    STALE = "stale"
    SILENT = "silent"
    ENDED = "ended"
    BLOCKED = "blocked"
    OPERATOR = "operator"
    TICK_GAP = "tick_gap"
    CLOCK_BACK = "clock_back"
    SENSOR_FORM = "sensor_form"
    SENSOR_AGE = "sensor_age"
    SENSOR_JUMP = "sensor_jump"
    SENSOR_VELOCITY = "sensor_velocity"
    SENSOR_LIMITS = "sensor_limits"
    SENSOR_FROZEN = "sensor_frozen"
    TRACKING = "tracking"


EXPLAINED: dict[Reason, tuple[str, Mode]] = {
    Reason.NOT_FINITE: ("the plan holds NaN, an infinity, or a number beyond ±10⁶", Mode.STOPPED),
    Reason.FORM: (
        "the plan is empty, misshapen, too long (also: over 500 points), out of sequence, lacks velocities, "
        "or cannot be checked",
        Mode.STOPPED,
    ),
    Reason.NAMES: ("joints are missing, unknown or doubled", Mode.STOPPED),
    Reason.ORDER: ("the plan's stamp is not after that of the last plan, or the end of the last brake", Mode.READY),
    Reason.LATE: ("the plan's stamp is too old", Mode.READY),
    Reason.AHEAD: ("the plan begins too far in the future", Mode.STOPPED),
    Reason.JUMP: ("the plan begins too far from where the arm is, or after it would stand", Mode.READY),
    Reason.POSITION: ("a joint would pass its end, or could not stop before it", Mode.STOPPED),
    Reason.SPEED: ("velocity, acceleration or jerk are beyond what slowing may mend", Mode.STOPPED),
    Reason.WORKSPACE: ("the hand would leave its box", Mode.STOPPED),
    Reason.COLLISION: ("the arm would touch itself, the table or an obstacle", Mode.READY),
    Reason.NOT_READY: ("the guard takes no plans now", Mode.READY),
    Reason.STALE: ("no new plan came in time", Mode.READY),
    Reason.SILENT: ("the planner's heartbeat is missing", Mode.READY),
    Reason.ENDED: ("the plan is over while the arm still moves", Mode.READY),
    Reason.BLOCKED: ("from the next command on there would be no free way to rest", Mode.READY),
    Reason.OPERATOR: ("a stop was asked for", Mode.STOPPED),
    Reason.TICK_GAP: ("ticks were missed, or came too slowly", Mode.READY),
    Reason.CLOCK_BACK: ("the clock went back", Mode.FAULT),
    Reason.SENSOR_FORM: ("a reading lacks a joint, or is misshapen or not finite", Mode.FAULT),
    Reason.SENSOR_AGE: ("there is no fresh reading, or it is from the future", Mode.FAULT),
    Reason.SENSOR_JUMP: ("a measured position moved faster than a joint can", Mode.FAULT),
    Reason.SENSOR_VELOCITY: ("measured velocities do not add up to the measured motion", Mode.FAULT),
    Reason.SENSOR_LIMITS: ("a joint was measured beyond its limits", Mode.FAULT),
    Reason.SENSOR_FROZEN: ("readings repeat while the arm is commanded to move", Mode.FAULT),
    Reason.TRACKING: ("the arm is not where it was commanded to be", Mode.FAULT),
}
"""What each reason means, and the mode in which the arm then waits: ready goes on with the next good plan."""

SEVERITY = (Mode.READY, Mode.STOPPED, Mode.FAULT)
"""Modes at rest, the harder to leave the later; of several reasons the hardest counts."""
