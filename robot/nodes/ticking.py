"""Ticks at a fixed rate from a thread of their own, each due at its time, and how punctual they are."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

SLIP_S = 0.1
"""A tick that is later than this is not made up for at once: the ones after it are due from then on."""
POLL_S = 0.001
"""How often a clock that is not the machine's own is looked at."""
SWITCH_S = 0.0005
"""After so long a thread that runs Python lets another in; by default it is ten times as long."""


TICKS, MESSAGES, OTHERS = 50, 10, 0
"""Priorities of threads: real-time ones, and that of any other thread."""


def prioritised(priority: int) -> bool:
    """Gives this thread, and those that it starts from now on, a priority; False where that is not permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO if priority else os.SCHED_OTHER, os.sched_param(priority))
    except (AttributeError, OSError):  # not this system, or not this user
        return False
    return True


class Ticker:
    """Calls ``tick``, with how late it is, every ``period_s`` seconds of ``clock``.

    The clock may be slow, fast, stand still or be set back.
    ``repay``: the share of the period by which ticks are due sooner until what was not made up for is; 0: it never is.
    ``urgent``: with a real-time priority, if the system permits. What ``tick`` raises ends the thread, and ``check``
    raises it.
    """

    def __init__(
        self,
        period_s: float,
        tick: Callable[[float], object],
        clock: Callable[[], float] = time.monotonic,
        urgent: bool = False,
        repay: float = 0.0,
    ) -> None:
        self.period_s, self._tick, self._clock, self._urgent, self._repay = period_s, tick, clock, urgent, repay
        self.slipped_s = 0.0
        """How much is not made up for."""
        self.priority = "normal"
        """Or, where it was permitted, ``real-time``."""
        self._late: deque[float] = deque(maxlen=max(100, round(10 / period_s)))
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticks", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        self._thread.start()

    def close(self) -> None:
        """No tick comes after this."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def check(self) -> None:
        """Raises what a tick raised."""
        if self._error is not None:
            raise self._error

    def facts(self) -> dict[str, object]:
        """Of the last ten seconds: how late ticks were, in milliseconds."""
        late = 1e3 * np.array(list(self._late) or [0.0])
        return {
            "ticks late, mean (ms)": float(late.mean()),
            "ticks late, 99 % (ms)": float(np.percentile(late, 99)),
            "ticks late, at most (ms)": float(late.max()),
            "not made up for (s)": self.slipped_s,
            "priority": self.priority,
        }

    def _run(self) -> None:
        if prioritised(TICKS if self._urgent else OTHERS) and self._urgent:
            self.priority = "real-time"
        try:
            self._loop()
        except BaseException as e:
            self._error = e

    def _loop(self) -> None:
        most = np.inf if self._clock is time.monotonic else POLL_S
        while self._clock() <= 0 and not self._stop.wait(POLL_S):
            pass  # a simulated clock reads 0 until it is heard
        due = self._clock()
        while not self._stop.is_set():
            now = self._clock()
            if due - now > SLIP_S + self.period_s:  # the clock was set back
                due = now
            if due > now:
                time.sleep(min(due - now, most))
                continue
            if now - due > SLIP_S:
                self.slipped_s += now - due
                due = now
            self._late.append(now - due)
            self._tick(now - due)
            sooner = min(self.slipped_s, self._repay * self.period_s)
            self.slipped_s -= sooner
            due += self.period_s - sooner
