"""The arm's data: what it promises, checked from its arrays alone."""

from __future__ import annotations

from functools import cache

import mujoco
import numpy as np
import pytest

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError
from dfplanner_envs.arm import collect, reach_arm
from dfplanner_envs.arm.collect import TAIL, collect_arm
from dfplanner_envs.arm.sim import DT_S
from dfplanner_envs.arm.task import reach_task
from dfplanner_envs.collect import collect_for

TASK = reach_task()
ARM = reach_arm()
LIMITS = ARM.limits


@pytest.fixture(scope="module", autouse=True)
def small_rounds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "ROUND", 24)
        patch.setattr(collect, "LANES", 12)
        yield


@cache
def data() -> Episodes:
    return collect_for("arm-reach", 2500, 7, stay=True)


def test_shape_and_facts():
    e = data()
    assert e.observations.shape == (e.steps, 17) and e.actions.shape == (e.steps, 7) and e.goals.shape == (e.steps, 7)
    assert 2500 <= e.steps < 2500 + 250
    facts = {"env": "arm-reach", "stay": True, "dt_s": DT_S, "seed": 7, "pos": list(range(3, 10))}
    assert facts.items() <= e.meta.items()
    assert np.abs(e.actions).max() <= 1


def test_the_hand_is_where_the_joints_put_it():
    e, mj = data(), mujoco.MjData(ARM.model)  # pyright: ignore
    for row in e.observations[::40]:
        mj.qpos[ARM.qpos] = row[3:10]
        mujoco.mj_kinematics(ARM.model, mj)  # pyright: ignore
        np.testing.assert_allclose(row[:3], mj.site_xpos[ARM.hand], atol=1e-5)


def test_every_episode_comes_to_its_goal_and_stays():
    e = data()
    assert e.arrival is not None
    for rows, arrival in zip(e.slices(), e.arrival, strict=True):
        hand, qd, end = e.observations[rows, :3], e.observations[rows, 10:], e.goals[rows]
        assert (end == end[0]).all()
        goal = TASK.chain.hand(end)
        there = (np.linalg.norm(hand - goal, axis=1) <= 0.02) & (np.abs(qd).max(1) <= 0.1)
        assert there[arrival:].all() and len(there) - arrival >= TAIL // 2 and (arrival == 0 or not there[arrival - 1])
        assert np.array_equal(e.rewards[rows], there.astype(np.float32))
        assert np.abs(qd[-1]).max() < 1e-3 and not e.actions[rows][-5:].any()
        assert np.linalg.norm(hand[-1] - goal[-1]) < 5e-3


def test_some_begin_at_rest_some_in_motion_and_some_at_rest_nearly_there():
    e = data()
    first = e.observations[e.starts]
    speed, left = np.abs(first[:, 10:]).max(1), np.abs(first[:, 3:10] - e.goals[e.starts]).max(1)
    rest = speed < 1e-6
    assert 0.3 < rest.mean() < 0.9 and (speed > 0.1).mean() > 0.1
    assert (rest & (left > 1)).any() and (rest & (left > 0.05) & (left < 0.4)).any()


def test_some_begin_stopped_before_what_blocks_the_straight_way():
    e = data()
    first, end = e.observations[e.starts, 3:10].astype(float), e.goals[e.starts].astype(float)
    stopped = np.abs(e.observations[e.starts, 10:]).max(1) < 1e-6
    close = np.array([not TASK.rounded.free(q) for q in first])
    ahead = np.array([not TASK.near.segment_free(q, g, 0.02) for q, g in zip(first, end, strict=True)])
    assert TASK.near.free(first[close]).all()
    assert (stopped & ahead).mean() > 0.15 and (close & stopped & ahead).any()
    for rows in np.array(list(e.slices()), object)[close]:
        free = TASK.rounded.free(e.observations[rows, 3:10].astype(float))
        left = int(free.argmax())
        assert free[left:].all(), "what has left does not come back"


def test_no_limit_is_exceeded_by_independent_differences():
    e = data()
    for rows in e.slices():
        q, qd = e.observations[rows, 3:10].astype(float), e.observations[rows, 10:].astype(float)
        v, a = np.diff(q, axis=0) / DT_S, np.diff(qd, axis=0) / DT_S
        assert not LIMITS.exceeded(q, qd).any()
        assert not LIMITS.exceeded(velocity=v, acceleration=a).any()
        assert not LIMITS.exceeded(jerk=np.diff(a, axis=0) / DT_S).any()
        # What is commanded is what is done: the action is the velocity at the step's end.
        assert np.abs(qd[1:] - e.actions[rows][:-1] * LIMITS.velocity).max() < 0.05


def test_nothing_is_touched_between_the_stored_steps_either():
    e, mj = data(), mujoco.MjData(ARM.model)  # pyright: ignore
    for rows in list(e.slices())[:12]:
        q = e.observations[rows, 3:10].astype(float)
        for row in np.concatenate([q, (q[1:] + q[:-1]) / 2]):
            mj.qpos[ARM.qpos] = row
            mujoco.mj_kinematics(ARM.model, mj)  # pyright: ignore
            mujoco.mj_collision(ARM.model, mj)  # pyright: ignore
            assert mj.ncon == 0


def test_the_same_goal_has_one_answer():
    """Near goals end in near postures, wherever the arm came from."""
    e = data()
    last = e.ends - 1
    q = e.observations[last, 3:10]
    goals = TASK.chain.hand(e.goals[last])
    assert np.abs(q - e.goals[last]).max() < 0.02
    np.testing.assert_allclose(TASK.posture(goals)[0], e.goals[last], atol=2e-3)
    apart = np.linalg.norm(goals[:, None] - goals[None], axis=2) + 10 * np.eye(len(goals))
    i, j = np.unravel_index(np.argsort(apart, axis=None)[:10], apart.shape)
    assert (np.abs(q[i] - q[j]).max(1) <= 12 * apart[i, j] + 0.02).all()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    first, again, other = (collect_arm(400, seed, threads=threads) for seed, threads in ((1, 1), (1, 2), (2, 1)))
    for name in ("observations", "actions", "goals", "rewards", "starts", "arrival"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert first.meta == again.meta
    assert not np.array_equal(first.goals[0], other.goals[0])


def test_progress_counts_every_step_and_wrong_counts_are_refused():
    told: list[int] = []
    e = collect_arm(300, 3, told.append)
    assert sum(told) == e.steps
    with pytest.raises(DFPlannerError, match="at least 1"):
        collect_arm(0, 0)
