"""How soon to try again while a guard cuts plan after plan off and the arm comes no nearer to its goal."""

from __future__ import annotations

import math

CUTS = 3
"""So many plans in a row may be cut off without a wait: those that lead on were cut off less often."""
FIRST_S, LONGEST_S = 0.1, 2.0
"""The wait after the next one; it doubles with each, up to the longest."""
NEARER_M = 0.01
"""Less is none: an arm that is cut off again and again still creeps."""
QUIET_S = 5.0
"""After so long without a cut the next one is the first."""


class Patience:
    """Counts the plans that were cut off since the arm last came nearer to its goal. Times are the caller's."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A new beginning."""
        self.cuts, self.nearest = 0, math.inf
        self.until = -math.inf
        """When the next plan may be asked for."""

    @property
    def blocked(self) -> bool:
        """Whether plans are waited with."""
        return self.cuts > CUTS

    def at(self, distance: float) -> bool:
        """The arm is so many metres from the goal; NaN: nobody knows. Whether that is nearer than before."""
        nearer = distance < self.nearest - NEARER_M
        if nearer:
            self.cuts, self.nearest, self.until = 0, distance, -math.inf
        return nearer

    def cut(self, now: float) -> None:
        """A plan was cut off."""
        self.cuts = 1 if now - self.until > QUIET_S else self.cuts + 1
        self.until = now + (min(FIRST_S * 2 ** (self.cuts - CUTS - 1), LONGEST_S) if self.blocked else 0.0)
