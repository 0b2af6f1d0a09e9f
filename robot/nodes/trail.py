"""The way back: where a body came from, and how far back along it to go when it comes no further."""

from __future__ import annotations

import numpy as np

from dfplanner_robot.trajectory import Floats

APART, LONGEST = 0.03, 600
"""Radians of a joint between two postures that are remembered, and how many are."""
NEAR, THERE = 0.06, 0.03
"""Within so many radians of a posture the one before it is made for, and the last one has been reached."""
BACK, MOST = 0.6, 4
"""Radians to go back the first time; each further time it is twice as far, up to so many times."""
SKIPS = 5
"""So many postures in a row may turn out not to be had, before it gives up for now."""
STUCK_S, STUCK_PLANS = 2.0, 10
"""Who did not move in so long, for all that it was given so many plans, is stuck."""


class Trail:
    """Remembers postures (J,) as they come, and leads back along them. Times are the caller's.

    A body that once was there can mostly be there again. Not always: braking it may have come nearer to something than
    a plan is allowed to.
    """

    def __init__(self) -> None:
        self._points: list[Floats] = []
        self._moved = 0.0
        self.forget()

    def forget(self) -> None:
        """Another goal: what it comes from stays, how often it went back for the last one does not."""
        self.tries = 0
        """How often it has gone back since it last came nearer to its goal."""
        self.plans = 0
        """How many it was given since it last moved."""
        self.stop()

    def stop(self) -> None:
        """Goes back no more."""
        self._left: int | None = None
        """How many postures there will be, once it is back."""
        self._skips = 0

    def clear(self) -> None:
        """The body is elsewhere all at once: it did not come from there."""
        self._points.clear()
        self.forget()

    @property
    def back(self) -> bool:
        """Whether it is being led back."""
        return self._left is not None

    def note(self, now: float, q: Floats) -> None:
        """The body is at ``q`` (J,)."""
        if not self._points or _apart(q, self._points[-1]) > APART:
            self._moved, self.plans = now, 0
            if not self.back:
                self._points.append(q)
                del self._points[:-LONGEST]

    def stuck(self, now: float) -> bool:
        """Whether it has not moved for long, and should have."""
        return self.plans >= STUCK_PLANS and now - self._moved > STUCK_S

    def turn(self) -> bool:
        """Begins to lead back, farther each time; whether there is anywhere to go to."""
        far, points, left = BACK * 2 ** min(self.tries, MOST), self._points, len(self._points)
        self.tries, self.plans = self.tries + 1, 0
        while left > 1 and far > 0:
            left -= 1
            far -= _apart(points[left], points[left - 1])
        self._left = left if left < len(points) else None
        return self.back

    def skip(self) -> None:
        """There is no way to the posture that is made for: the one before it is tried, if it is on the way back."""
        self._points.pop()
        self._skips += 1
        if self._skips > SKIPS or self._left is None or len(self._points) <= self._left:
            self.stop()

    def next(self, q: Floats) -> Floats | None:
        """The posture (J,) to make for from ``q`` (J,); None where it does not lead back, or no further."""
        points, left = self._points, self._left
        if left is None:
            return None
        while len(points) > left and _apart(points[-1], q) < NEAR:
            points.pop()
            self._skips = 0
        if len(points) == left and _apart(points[-1], q) < THERE:
            self.stop()
            return None
        return points[-1]


def _apart(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).max())
