"""The way back: along what it came from, farther each time, past what cannot be had again."""

from __future__ import annotations

import numpy as np
import pytest

from dfplanner_robot.nodes.trail import APART, BACK, LONGEST, NEAR, SKIPS, STUCK_PLANS, STUCK_S, THERE, Trail


def walked(way: np.ndarray) -> Trail:
    """A trail of postures (T, J), one every 0.1 s."""
    trail = Trail()
    for k, q in enumerate(way):
        trail.note(0.1 * k, q)
    return trail


def led(trail: Trail, q: np.ndarray, step: float = 0.04) -> list[np.ndarray]:
    """Where a body comes that goes straight to each posture it is told, in such steps."""
    seen = [q]
    while (to := trail.next(seen[-1])) is not None:
        off = to - seen[-1]
        seen.append(seen[-1] + off * min(1.0, step / max(1e-9, float(np.abs(off).max()))))
        trail.note(100.0 + len(seen), seen[-1])
        assert len(seen) < 1000
    return seen


def spiral(n: int = 1500) -> np.ndarray:
    t = np.linspace(0, 4, n)[:, None]
    return np.concatenate([t * np.cos(2 * t), t * np.sin(2 * t)], axis=1)


def test_it_leads_back_along_the_way_it_came_and_farther_each_time() -> None:
    way = spiral()
    trail, q = walked(way), way[-1]
    far = []
    for k in range(3):
        assert not trail.back and trail.next(q) is None
        assert trail.turn() and trail.back and trail.tries == k + 1
        seen = np.array(led(trail, q))
        assert not trail.back
        gaps = np.abs(seen[:, None] - way).max(2).min(1)
        assert gaps.max() < NEAR, "it stays with the way it came"
        far.append(np.abs(np.diff(seen, axis=0)).max(1).sum())
        q = seen[-1]
    assert far[0] == pytest.approx(BACK, abs=0.2) and far[0] < far[1] < far[2]
    trail.forget()
    assert trail.tries == 0 and trail.turn(), "another goal, the same way back"


def test_it_leads_to_the_beginning_and_no_farther() -> None:
    way = np.linspace(0, 0.3, 30)[:, None] * np.ones(3)
    trail = walked(way)
    assert trail.turn()
    assert np.abs(led(trail, way[-1])[-1] - way[0]).max() < THERE
    assert not trail.turn(), "there is nothing before it"
    assert not walked(way[:1]).turn() and not Trail().turn()


def test_postures_that_cannot_be_had_again_are_left_out_but_not_many_in_a_row() -> None:
    way = spiral()
    trail = walked(way)
    trail.turn()
    first = trail.next(way[-1])
    assert first is not None
    trail.skip()
    second = trail.next(way[-1])
    assert second is not None and np.abs(second - way[-1]).max() > np.abs(first - way[-1]).max()
    for _ in range(SKIPS):
        assert trail.back
        trail.skip()
    assert not trail.back
    assert trail.turn(), "it may be asked again"


def test_who_is_given_plans_and_does_not_move_is_stuck() -> None:
    here, trail = np.ones(2), Trail()
    trail.note(5.0, here)
    assert not trail.stuck(5.0 + 2 * STUCK_S), "nothing was planned"
    trail.plans = STUCK_PLANS
    assert not trail.stuck(5.0 + 0.9 * STUCK_S) and trail.stuck(5.1 + STUCK_S)
    trail.note(9.0, here + APART / 2)
    assert trail.stuck(9.0), "that is no motion"
    trail.note(9.0, here + 2 * APART)
    assert not trail.stuck(20.0)


def test_it_forgets_what_is_long_ago_and_all_when_the_body_is_elsewhere() -> None:
    trail = walked(np.arange(2.0 * LONGEST)[:, None])
    assert len(trail._points) == LONGEST and trail._points[-1] == 2 * LONGEST - 1
    trail.turn()
    trail.clear()
    assert not trail.back and not trail.turn()
