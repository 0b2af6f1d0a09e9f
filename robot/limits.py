"""What of an arm's limits a command may use: servos overshoot, and joints push one another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dfplanner.types import DFPlannerError

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits


def commanded(
    limits: JointLimits,
    velocity: float = 0.95,
    acceleration: float = 0.45,
    jerk: float = 1.0,
    inset_rad: float = 0.02,
) -> JointLimits:
    """The limits for commands: shares, above 0 and up to 1, of the arm's own, and ``inset_rad`` short of joint ends.

    The default shares are those of the simulated arm, whose measured joints then keep its limits. Raises DFPlannerError
    on other shares.
    """
    shares = {"velocity": velocity, "acceleration": acceleration, "jerk": jerk}
    if not all(0 < share <= 1 for share in shares.values()) or not inset_rad >= 0:
        raise DFPlannerError(
            f"shares {shares} and an inset of {inset_rad} rad came; expected above 0 to 1, and at least 0"
        )
    return replace(
        limits,
        lower=limits.lower + inset_rad,
        upper=limits.upper - inset_rad,
        **{name: share * getattr(limits, name) for name, share in shares.items()},
    )


def including(limits: JointLimits, position: np.ndarray) -> JointLimits:
    """The limits, widened so far that ``position`` (J,) is inside: who begins beyond an inset may come back."""
    return replace(limits, lower=np.minimum(limits.lower, position), upper=np.maximum(limits.upper, position))
