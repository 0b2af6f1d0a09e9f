"""Interpolation against an independent solver, joints of trajectories, slowing, and brakes: laws on random states."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import JointLimits
from dfplanner_robot.brake import brake, can_stop, stops
from dfplanner_robot.limits import commanded, including
from dfplanner_robot.trajectory import (
    Curve,
    JointTrajectory,
    fitted,
    from_actions,
    from_states,
    since,
    slowdown,
    slowed,
    splice,
    with_accelerations,
)

NAMES = ("a", "b", "c")
LIMITS = JointLimits(
    NAMES,
    lower=np.array([-2.0, -1.0, -3.0]),
    upper=np.array([2.0, 1.0, 3.0]),
    velocity=np.array([2.0, 1.0, 3.0]),
    acceleration=np.array([10.0, 4.0, 15.0]),
    jerk=np.array([80.0, 500.0, 7000.0]),
    effort=np.ones(3),
)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def some(rng: np.random.Generator, points: int, derivatives: int = 2) -> JointTrajectory:
    """A random trajectory, its first point a little after its stamp."""
    times = np.cumsum(rng.uniform(0.02, 0.3, points))
    q, v, a = (rng.normal(size=(points, 3)) for _ in range(3))
    return JointTrajectory(NAMES, 5.0, times, q, v if derivatives else None, a if derivatives > 1 else None)


def solved(tr: JointTrajectory, i: int, u: float) -> np.ndarray:
    """Position, velocity, acceleration (3, J) u seconds into segment i: the conditions at both ends, solved."""
    given = [x for x in (tr.positions, tr.velocities, tr.accelerations) if x is not None]
    n, h = 2 * len(given), float(np.diff(tr.times)[i])

    def row(t: float, k: int) -> list[float]:
        """The k-th derivative of 1, t, t², ... at t."""
        return [float(np.prod(np.arange(p - k + 1, p + 1))) * t ** (p - k) if p >= k else 0.0 for p in range(n)]

    lhs = np.array([row(t, k) for t in (0.0, h) for k in range(len(given))])
    rhs = np.array([x[j] for j in (i, i + 1) for x in given])
    c = np.linalg.solve(lhs, rhs)
    return np.array([row(u, k) for k in range(3)]) @ c


@given(seeds, st.integers(0, 2), st.floats(1e-3, 1 - 1e-3))
def test_interpolation_is_the_polynomial_through_both_ends(rng, derivatives, share):
    tr = some(rng, 4, derivatives)
    i = int(rng.integers(3))
    u = share * float(np.diff(tr.times)[i])
    state = tr.curve.at(5.0 + tr.times[i] + u)
    expected = solved(tr, i, u)
    assert_allclose(np.array(state[:3]), expected, rtol=1e-6, atol=1e-6 / np.diff(tr.times).min() ** 2)


@given(seeds, st.integers(0, 2))
def test_interpolation_meets_the_points_whatever_the_clock(rng, derivatives):
    for stamp in (0.0, 1.7e9):
        tr = replace(some(rng, 5, derivatives), stamp=stamp)
        states = tr.curve.at(stamp + tr.times)
        assert_allclose(states.q, tr.positions, atol=1e-9 if stamp == 0 else 1e-4)
        if tr.velocities is not None:
            assert_allclose(states.v, tr.velocities, atol=1e-6 if stamp == 0 else 1e-2)


@given(seeds)
def test_before_and_after_it_rests(rng):
    tr = some(rng, 3)
    for t, q in ((tr.stamp, tr.positions[0]), (tr.end + 1, tr.positions[-1])):
        state = tr.curve.at(t)
        assert (state.q == q).all() and not any(np.any(x) for x in state[1:])
    one = replace(tr, times=tr.times[:1], positions=tr.positions[:1], velocities=None, accelerations=None)
    assert (one.curve.at([0.0, 9.0]).q == tr.positions[0]).all() and one.curve.ends_at_rest()


@given(seeds, st.integers(0, 2))
def test_peaks_bound_everything_and_are_tight(rng, derivatives):
    curve = some(rng, 4, derivatives).curve
    dense = curve.at(np.linspace(curve.start, curve.end, 3001)[:-1])
    peaks = curve.peaks()
    assert (dense.q.min(0) >= peaks.lower - 1e-12).all() and (dense.q.max(0) <= peaks.upper + 1e-12).all()
    for bound, values in zip(peaks[2:], dense[1:], strict=True):
        reached = np.abs(values).max(0)
        assert (reached <= bound * (1 + 1e-9) + 1e-12).all()
        assert (bound <= 1.3 * reached + 1e-9).all()


def test_bad_shapes_and_times_are_told():
    for args in (([0.0], np.zeros(3)), ([0.0, 1.0], np.zeros((3, 2))), ([], np.zeros((0, 2)))):
        with pytest.raises(DFPlannerError, match="expected N and"):
            Curve(*args)
    with pytest.raises(DFPlannerError, match="must increase"):
        Curve([0.0, 0.0], np.zeros((2, 2)))


@given(seeds)
def test_actions_are_integrated_as_the_environment_does(rng):
    q, v, actions = rng.normal(size=3), rng.normal(size=3), rng.uniform(-1, 1, (6, 3))
    tr = from_actions(NAMES, 2.0, q, v, actions, LIMITS.velocity, 0.05)
    assert tr.velocities is not None
    for i, action in enumerate(actions):  # ArmSim.step: the velocity goes there linearly, the position is its integral
        goal = action * LIMITS.velocity
        q, v = q + 0.05 * (v + goal) / 2, goal
        assert_allclose(tr.positions[i + 1], q, atol=1e-12)
        assert_allclose(tr.velocities[i + 1], v, atol=1e-12)
    again = from_states(NAMES, 2.0, tr.positions, tr.velocities, 0.05)
    assert_allclose(again.curve.at(2.13).q, tr.curve.at(2.13).q, atol=1e-12)


def test_wrong_actions_and_states_are_told():
    with pytest.raises(DFPlannerError, match="expected \\(H, 3\\)"):
        from_actions(NAMES, 0.0, np.zeros(3), np.zeros(3), np.zeros((4, 2)), LIMITS.velocity, 0.05)
    with pytest.raises(DFPlannerError, match="expected \\(T, 3\\)"):
        from_states(NAMES, 0.0, np.zeros((4, 3)), np.zeros((3, 3)), 0.05)


@given(seeds, st.floats(0, 1), st.sampled_from([0.0, 0.1]))
def test_a_splice_is_continuous_and_leads_into_the_new(rng, share, blend_s):
    old, new = some(rng, 5), some(rng, 5)
    at = old.stamp + float(old.times[0] + share * (old.times[-1] - old.times[0]))
    new = replace(new, stamp=at - float(new.times[1]) / 2)
    if (new.stamp + new.times <= at + max(blend_s, 1e-6)).all():
        return
    joined = splice(old, new, at, blend_s)
    curve = joined.curve
    for t in np.linspace(old.curve.start, at, 7)[:-1]:  # before: the old one, but for the segment it breaks off in
        if t < old.stamp + old.times[old.stamp + old.times <= at][-1]:
            assert_allclose(curve.at(t).q, old.curve.at(t).q, atol=1e-9)
    for x, y in zip(curve.at(at)[:3], old.curve.at(at)[:3], strict=True):
        assert_allclose(x, y, atol=1e-7)
    for t in new.stamp + new.times[new.stamp + new.times > at + max(blend_s, 1e-6)]:
        for x, y in zip(curve.at(t)[:2], new.curve.at(t)[:2], strict=True):
            assert_allclose(x, y, atol=1e-7)


def test_a_new_trajectory_that_goes_on_like_the_old_changes_nothing():
    rng = np.random.default_rng(0)
    whole = some(rng, 8)
    at = whole.stamp + float(whole.times[3] + whole.times[4]) / 2
    joined = splice(whole, since(whole, at), at).curve
    t = np.linspace(whole.curve.start, whole.end, 300)
    assert_allclose(joined.at(t).q, whole.curve.at(t).q, atol=1e-9)


def test_what_cannot_be_joined_is_told():
    old, new = some(np.random.default_rng(0), 4), some(np.random.default_rng(1), 4)
    with pytest.raises(DFPlannerError, match="expected the same"):
        splice(old, replace(new, names=("a", "b", "d")), 5.1)
    with pytest.raises(DFPlannerError, match="with velocities"):
        splice(old, replace(new, velocities=None), 5.1)
    with pytest.raises(DFPlannerError, match="new trajectory is over"):
        splice(old, replace(new, stamp=0.0), old.end - 0.01)
    with pytest.raises(DFPlannerError, match="still moving"):
        splice(old, replace(new, stamp=50.0), old.end + 1)


@given(seeds)
def test_what_was_fitted_keeps_every_limit_and_the_path(rng):
    tr = some(rng, 4, 1)
    slow, factor = fitted(tr, LIMITS)
    assert factor >= 1 and slowdown(slow.curve.peaks(), LIMITS) <= 1 + 1e-6
    assert fitted(slow, LIMITS)[1] <= 1 + 1e-6
    full = with_accelerations(tr)
    u = rng.uniform(tr.times[0], tr.times[-1])
    assert_allclose(slow.curve.at(5 + u * factor).q, full.curve.at(5 + u).q, atol=1e-6)
    assert_allclose(slow.end - 5, (tr.end - 5) * factor, rtol=1e-6)


def test_slowing_twice_is_slowing_once():
    tr = some(np.random.default_rng(3), 4)
    a, b = slowed(slowed(tr, 2.0), 1.5), slowed(tr, 3.0)
    assert_allclose(a.curve.at(5.7).v, b.curve.at(5.7).v)


def moving(rng: np.random.Generator, limits: JointLimits = LIMITS) -> tuple[np.ndarray, ...]:
    """A state within velocity and acceleration limits, anywhere in the range."""
    q = rng.uniform(limits.lower, limits.upper)
    scale = rng.choice([0.0, 0.01, 1.0], 2)
    return q, scale[0] * rng.uniform(-1, 1, 3) * limits.velocity, scale[1] * rng.uniform(-1, 1, 3) * limits.acceleration


@given(seeds)
def test_a_brake_ends_at_rest_within_acceleration_and_jerk(rng):
    q, v, a = moving(rng)
    tr = brake(NAMES, 3.0, q, v, LIMITS, a)
    assert tr.velocities is not None and tr.accelerations is not None
    curve = tr.curve
    first = curve.at(3.0)
    for x, y in zip(first[:3], (q, v, a), strict=True):
        assert_allclose(x, y, atol=1e-12)
    assert not tr.velocities[-1].any() and not tr.accelerations[-1].any()
    t = np.linspace(3.0, curve.end, 2001) if curve.end > 3 else np.array([3.0])
    dense = curve.at(t)
    assert (np.abs(dense.a) <= LIMITS.acceleration * (1 + 1e-6)).all()
    # over half a millisecond: changes of jerk that are closer than 20 microseconds are made as one
    jerk = np.diff(curve.at(np.arange(3.0, curve.end + 1e-3, 5e-4)).a, axis=0) / 5e-4
    assert (np.abs(jerk) <= LIMITS.jerk * 1.01 + 1e-6).all()


@given(seeds)
def test_stops_say_what_the_brake_does(rng):
    q, v, a = moving(rng)
    wide = replace(LIMITS, lower=LIMITS.lower - 100, upper=LIMITS.upper + 100)
    tr = brake(NAMES, 0.0, q, v, wide, a)
    dense = tr.curve.at(np.linspace(0, tr.end, 4001))
    stop = stops(v, a, wide)
    assert_allclose(tr.end, stop.seconds.max(), atol=1e-4)
    assert_allclose(dense.q.min(0) - q, stop.below, atol=2e-4)
    assert_allclose(dense.q.max(0) - q, stop.above, atol=2e-4)
    assert_allclose(np.abs(dense.v).max(0), stop.speed, atol=2e-3)


@given(seeds)
def test_no_bang_bang_stop_is_quicker(rng):
    """A stop in less time does not exist: the velocity lost in that time by the best jerk is too little."""
    _, v, a = moving(rng)
    seconds = stops(v, a, LIMITS).seconds
    for j in range(3):
        top, jerk, h = LIMITS.acceleration[j], LIMITS.jerk[j], max(seconds[j], 1e-9) / 2000
        n = np.arange(1, 2001)
        # Two ramps bound the acceleration: from a by the jerk, and to zero at the end by the jerk.
        lowest = np.maximum(np.maximum(a[j] - jerk * h * n, -jerk * h * (2000 - n)), -top)
        highest = np.minimum(np.minimum(a[j] + jerk * h * n, jerk * h * (2000 - n)), top)
        low, high = v[j] + h * lowest.sum(), v[j] + h * highest.sum()
        slack = 2 * h * top + 1e-9
        assert min(abs(low), abs(high)) <= slack


@given(seeds)
def test_a_joint_passes_its_end_only_where_it_must(rng):
    q, v, a = moving(rng)
    dense = (tr := brake(NAMES, 0.0, q, v, LIMITS, a)).curve.at(np.linspace(0, tr.end, 2001)).q
    for j in range(3):
        up = v[j] > 0
        room = LIMITS.upper[j] - q[j] if up else q[j] - LIMITS.lower[j]
        # Braking as hard as can be until it stands is the least it can go on.
        top, jerk, s = LIMITS.acceleration[j], LIMITS.jerk[j], 1 if up else -1
        t = np.linspace(0, 3, 30_001)
        push = np.maximum(s * a[j] - jerk * t, -top)
        speed = s * v[j] + np.append(0, np.cumsum((push[1:] + push[:-1]) / 2) * 1e-4)
        least = 1e-4 * np.sum(np.maximum(speed[: int(np.argmax(speed <= 0)) or 1], 0))
        if least < room - 1e-3:
            beyond = dense[:, j].max() - LIMITS.upper[j] if up else LIMITS.lower[j] - dense[:, j].min()
            assert beyond <= 1e-3


@given(seeds)
def test_who_can_stop_does_so_inside_the_limits(rng):
    q, v, a = moving(rng)
    tr = brake(NAMES, 0.0, q, v, LIMITS, a)
    dense = tr.curve.at(np.linspace(0, tr.end, 2001))
    inside = not (LIMITS.exceeded(dense.q, dense.v, tolerance=1e-5)).any()
    if can_stop(q, v, a, LIMITS):
        assert inside
    # and on the way it always still can
    if can_stop(q, v, a, LIMITS, 0.0):
        assert can_stop(dense.q, dense.v, dense.a, LIMITS, 1e-5).all()


def test_a_brake_from_nonsense_is_told():
    with pytest.raises(DFPlannerError, match="finite"):
        brake(NAMES, 0.0, np.zeros(3), np.array([0, np.nan, 0]), LIMITS)


def test_limits_for_commands():
    less = commanded(LIMITS, 0.5, 0.25, 0.75, 0.1)
    assert_allclose(less.velocity, LIMITS.velocity / 2)
    assert_allclose(less.upper, LIMITS.upper - 0.1)
    assert_allclose(less.jerk, 0.75 * LIMITS.jerk)
    wide = including(less, np.array([1.95, 0.0, -3.0]))
    assert_allclose(wide.upper - less.upper, [0.05, 0, 0], atol=1e-12)
    assert_allclose(wide.lower - less.lower, [0, 0, -0.1], atol=1e-12)
    with pytest.raises(DFPlannerError, match="shares"):
        commanded(LIMITS, 1.5)


def test_importing_it_brings_neither_torch_nor_ros_nor_mujoco():
    code = (
        "import sys, dfplanner_robot.safety, dfplanner_robot.core, dfplanner_robot.fakes, dfplanner_robot.brake;"
        "print([m for m in ('torch', 'rclpy', 'mujoco', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
