"""Ticks from a thread of their own, by a clock that misbehaves."""

from __future__ import annotations

import time

import pytest

from dfplanner_robot.nodes.ticking import SLIP_S, Ticker


def test_ticks_follow_a_clock_that_slips_and_is_set_back() -> None:
    now, late = [5.0], []
    ticker = Ticker(0.01, late.append, lambda: now[0], repay=0.5)
    ticker.start()

    def come(n: int) -> bool:
        end = time.monotonic() + 10
        while len(late) < n and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)
        return len(late) == n

    assert come(1)
    now[0] += 0.05
    assert come(6)
    assert max(late) < 0.05 + 1e-9
    now[0] += 10 * SLIP_S
    assert come(7)
    assert ticker.slipped_s == pytest.approx(1.0 - 0.01 - 0.005, abs=1e-6)
    now[0] += 0.0051
    assert come(8)  # sooner, until the debt is paid
    now[0] = 1.0
    assert come(9)
    ticker.close()
    ticker.check()


def test_what_a_tick_raises_is_raised_by_check() -> None:
    def broken(_: float) -> None:
        raise ValueError("broken")

    ticker = Ticker(0.01, broken)
    ticker.start()
    time.sleep(0.1)
    ticker.close()
    with pytest.raises(ValueError, match="broken"):
        ticker.check()
