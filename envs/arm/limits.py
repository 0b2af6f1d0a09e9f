"""What a joint may do: position, velocity, acceleration, jerk and effort, as data."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JointLimits:
    """Limits of J joints, each array (J,): radians and their derivatives by seconds; effort in newton metres.

    Raises DFPlannerError where shapes disagree, a range is empty, or a bound is not positive.
    """

    names: tuple[str, ...]
    lower: Floats
    upper: Floats
    velocity: Floats
    acceleration: Floats
    jerk: Floats
    effort: Floats

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            value = np.array(getattr(self, field.name), np.float64)
            if value.shape != (len(self.names),) or np.isnan(value).any():
                raise DFPlannerError(
                    f"{field.name} has shape {value.shape}; expected {len(self.names)} numbers, no NaN"
                )
            if field.name not in ("lower", "upper") and (value <= 0).any():
                raise DFPlannerError(f"{field.name} is {value.tolist()}; every joint's must be above 0")
            value.flags.writeable = False
            object.__setattr__(self, field.name, value)
        if (self.lower >= self.upper).any():
            raise DFPlannerError(f"lower {self.lower.tolist()} must be below upper {self.upper.tolist()}")

    def __len__(self) -> int:
        """The number of joints, J."""
        return len(self.names)

    def exceeded(
        self,
        position: ArrayLike | None = None,
        velocity: ArrayLike | None = None,
        acceleration: ArrayLike | None = None,
        jerk: ArrayLike | None = None,
        tolerance: float = 1e-6,
    ) -> NDArray[np.bool_]:
        """(..., J) where any of the given values (..., J) is beyond its limit, by more than a share ``tolerance``.

        For positions the tolerance is in radians. What is not a number is beyond every limit.
        """
        found = np.zeros(len(self), np.bool_)
        if position is not None:
            q = np.asarray(position, np.float64)
            found = found | ~((q >= self.lower - tolerance) & (q <= self.upper + tolerance))
        for value, bound in ((velocity, self.velocity), (acceleration, self.acceleration), (jerk, self.jerk)):
            if value is not None:
                found = found | ~(np.abs(np.asarray(value, np.float64)) <= bound * (1 + tolerance))
        return found

    def reachable(
        self, position: Floats, velocity: Floats, wanted: Floats, dt_s: float, speed: float, push: float, end_rad: float
    ) -> Floats:
        """The velocities (..., J) nearest to ``wanted`` that can be had ``dt_s`` later: speed, push, braking room.

        From positions and velocities (..., J); ``speed`` and ``push``: shares of the velocity and acceleration limits
        that may be used; ``end_rad``: so far before a joint's end it stops.
        """
        brake, top = push * self.acceleration, speed * self.velocity
        high, low = self.upper - end_rad - position, position - self.lower - end_rad

        def fastest(room: Floats, now: Floats) -> Floats:
            # Braking at ``brake`` ends within the room; the last of it is closed exponentially, lest it oscillate.
            soft = 2 * brake * dt_s
            return np.sqrt(np.maximum(soft**2 + 2 * brake * (room - now * dt_s / 2), 0.0)) - soft

        v = np.clip(wanted, np.maximum(-top, -fastest(low, -velocity)), np.minimum(top, fastest(high, velocity)))
        return np.clip(v, velocity - brake * dt_s, velocity + brake * dt_s)
