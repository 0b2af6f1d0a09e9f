"""Whether arm and guard are still heard. Imports no ROS."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_S = 3.0
"""The first reading may take so long: nodes must find one another."""
READING_S, GUARD_S = 0.5, 3.0
"""Ages at which the last reading is old, and the guard silent, which speaks once a second."""


class Ears:
    """Listens for readings on ``topic``, and for the guard, if there is one.

    By a steady clock, in seconds: with a simulation that died, the node's own stands still. ``warn`` and ``say`` are
    told when somebody falls silent, and when all are heard again.
    """

    def __init__(
        self,
        topic: str,
        warn: Callable[[str], object],
        say: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic, self._warn, self._say, self._clock = topic, warn, say, clock
        self.close()

    def listen(self) -> None:
        """Begins; whoever was heard before does not count."""
        self.close()
        self._since = self._clock()

    def close(self) -> None:
        """Listens no more."""
        self._since: float | None = None
        self._reading: float | None = None
        self._guard: float | None = None
        self._useless = False
        self._missed = ""

    def reading(self, useful: bool) -> None:
        """A reading came; whether it was of use."""
        if useful:
            self._reading = self._clock()
        self._useless = not useful

    def guard(self) -> None:
        """The guard spoke."""
        self._guard = self._clock()

    def missed(self) -> str:
        """Who is not heard, a sentence; empty if there is nothing to say. To be called now and then."""
        who, words = self._silent()
        if who and who != self._missed:
            self._warn(words)
        elif self._missed and not who:
            self._say(f"{self._missed} is heard again")
        self._missed = who
        return words

    def _silent(self) -> tuple[str, str]:
        now = self._clock()
        if self._since is None:
            return "", ""
        if self._reading is None and now - self._since > FIRST_S:
            came = "those that came are of other joints, or not finite" if self._useless else "none came"
            return "the arm", f"waits for joint states on {self._topic}: {came}"
        if self._reading is not None and now - self._reading > READING_S:
            return "the arm", f"the last joint state is {now - self._reading:.1f} s old"
        if self._guard is not None and now - self._guard > GUARD_S:
            return "the guard", f"the guard was last heard {now - self._guard:.0f} s ago"
        return "", ""
