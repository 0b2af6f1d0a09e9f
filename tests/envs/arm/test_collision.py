"""Collisions that are known, distances that are kept, and paths that go round things."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from dfplanner_envs.arm import arm_of, reach_arm
from dfplanner_envs.arm.collision import CollisionChecker, collidable
from dfplanner_envs.arm.model import REACH_XML
from dfplanner_envs.arm.roadmap import reach_roadmap
from dfplanner_envs.arm.script import script
from dfplanner_envs.arm.sim import DT_S
from dfplanner_envs.arm.task import CLEARANCE, SELF_CLEARANCE, reach_task
from dfplanner_envs.arm.timing import PUSH, SPEED, rounded, velocities

ARM = reach_arm()
REST = ARM.rest


def moved(*by: float) -> np.ndarray:
    """The rest posture, its joints moved."""
    return REST + np.array(by)


KNOWN = {
    "table": (moved(2.2, 2.0, 0, 0.7, 0, 0, 0), {"table"}),
    "pillar": (moved(0, 0.75, 0, 0.35, 0, 0, 0), {"pillar"}),
    "post": (moved(-0.98, 0.75, 0, 0.35, 0, 0, 0), {"post"}),
    "itself": (np.array([0, 0, 0, -3.05, 0, 0, 0]), {"link2"}),
}


@pytest.mark.parametrize("q, expected", KNOWN.values(), ids=KNOWN)
def test_known_collisions_are_seen(q, expected):
    checker = CollisionChecker(ARM)
    assert not checker.free(q)
    touched = {name for a, b, distance in checker.touching(q) for name in (a, b) if distance < 0}
    assert touched & expected


def test_rest_is_free_with_room():
    assert reach_task().checker.free(REST) and reach_task().checker.touching(REST) == []


def test_agrees_with_the_contacts_of_the_simulation():
    rng = np.random.default_rng(0)
    q = rng.uniform(ARM.limits.lower, ARM.limits.upper, (300, 7))
    data, free = mujoco.MjData(ARM.model), CollisionChecker(ARM).free(q)  # pyright: ignore
    for row, ours in zip(q, free, strict=True):
        data.qpos[ARM.qpos] = row
        mujoco.mj_forward(ARM.model, data)  # pyright: ignore
        assert (data.ncon == 0) == ours
    assert 0.1 < free.mean() < 0.9


def test_distances_are_kept_to_the_millimetre():
    """Free with a clearance exactly where MuJoCo's own distance between every pair is at least that."""
    rng = np.random.default_rng(1)
    checker = CollisionChecker(ARM, 0.05, 0.01)
    data, pairs = mujoco.MjData(ARM.model), collidable(ARM.model)  # pyright: ignore
    for q in REST + rng.normal(0, 0.5, (40, 7)):
        data.qpos[ARM.qpos] = q
        mujoco.mj_kinematics(ARM.model, data)  # pyright: ignore
        room = [
            mujoco.mj_geomDistance(ARM.model, data, a, b, 1.0, None) - (0.01 if own else 0.05)  # pyright: ignore
            for a, b, own in pairs
        ]
        if abs(min(room)) > 1e-3:
            assert checker.free(q) == (min(room) > 0)


def test_boxes_near_each_other_are_seen():
    """Two boxes corner to corner, 3 cm apart: nearer than 5 cm, farther than 1 cm."""
    spec = mujoco.MjSpec.from_file(str(REACH_XML))  # pyright: ignore
    spec.geom("palm").type = mujoco.mjtGeom.mjGEOM_BOX  # pyright: ignore
    spec.geom("palm").fromto = np.full(6, np.nan)
    spec.geom("palm").size = [0.03, 0.03, 0.03]
    arm = arm_of(spec)
    data = mujoco.MjData(arm.model)  # pyright: ignore
    palm, pillar = arm.model.geom("palm").id, arm.model.geom("pillar").id
    near, checker = 0, CollisionChecker(arm, 0.05)
    for q in REST + np.random.default_rng(3).normal(0, 0.4, (300, 7)):
        data.qpos[arm.qpos] = q
        mujoco.mj_kinematics(arm.model, data)  # pyright: ignore
        far = mujoco.mj_geomDistance(arm.model, data, palm, pillar, 1.0, None)  # pyright: ignore
        if 0.011 < far < 0.049:
            near += 1
            assert not checker.free(q)
            told = [d for a, b, d in checker.touching(q) if {a, b} == {"palm", "pillar"}]
            assert len(told) == 1 and told[0] <= far + 1e-3
    assert near


def test_a_segment_is_blocked_by_what_lies_in_its_middle():
    checker = reach_task().checker
    a, b = moved(-0.6, 0.75, 0, 0.35, 0, 0, 0), moved(0.6, 0.75, 0, 0.35, 0, 0, 0)
    assert checker.free(np.stack([a, b])).all()
    assert not checker.segment_free(a, b) and not checker.segment_free(b, a)
    assert checker.segment_free(a, a)


def test_the_roadmap_goes_round_and_repeats_itself():
    roadmap = reach_roadmap()
    a, b = moved(-0.6, 0.75, 0, 0.35, 0, 0, 0), moved(0.6, 0.75, 0, 0.35, 0, 0, 0)
    path = roadmap.path(a, b)
    assert path is not None and len(path) > 2
    assert np.array_equal(path[0], a) and np.array_equal(path[-1], b)
    assert CollisionChecker(ARM, 0.8 * CLEARANCE, 0.8 * SELF_CLEARANCE).path_free(path, 0.01)
    again = roadmap.path(a, b)
    assert again is not None and np.array_equal(path, again)


def test_the_shortest_way_over_a_graph():
    inf = np.inf
    far = np.array([[0, 1, 5, inf], [1, 0, 1, inf], [5, 1, 0, inf], [inf, inf, inf, 0]])
    after, length = reach_roadmap()._shortest(far)
    assert length[0, 2] == 2 and after[0, 2] == 1 and after[1, 2] == 2 and np.isinf(length[0, 3])


def test_scripts_end_where_they_should_as_gently_as_they_should():
    """By the integral and the differences of the velocities alone."""
    task = reach_task()
    for start, _, end in zip(*task.draw(12, np.random.default_rng(4)), strict=True):
        v = script(reach_roadmap(), start, end)
        assert v is not None
        v = np.concatenate([np.zeros((1, 7)), v])
        np.testing.assert_allclose(start + DT_S * ((v[1:] + v[:-1]) / 2).sum(0), end, atol=1e-9)
        assert (np.abs(v) <= 1.05 * SPEED).all() and (v[-1] == 0).all()
        assert (np.abs(np.diff(v, axis=0)) <= 1.6 * PUSH * DT_S).all()


def test_scripts_can_be_joined_in_motion():
    """From any velocity they go on without a jump, and end as they do from rest; along the path they keep it up."""
    task, rng = reach_task(), np.random.default_rng(5)
    for start, _, end in zip(*task.draw(8, rng), strict=True):
        moving = rng.normal(0, 0.3, 7)
        v = script(reach_roadmap(), start, end, moving)
        assert v is not None
        v = np.concatenate([moving[None], v])
        np.testing.assert_allclose(start + DT_S * ((v[1:] + v[:-1]) / 2).sum(0), end, atol=2e-3)
        assert (v[-1] == 0).all()
        assert (np.abs(np.diff(v, axis=0)) <= 3 * PUSH * DT_S).all()
    line = rounded(np.array([np.zeros(7), 2 * np.ones(7)]), 0.5)
    kept = velocities(line, DT_S, np.full(7, 0.6))
    assert kept[: len(kept) // 2].min() > 0.55 and len(kept) < len(velocities(line, DT_S))


def test_a_straight_line_stays_straight_and_corners_are_cut():
    a, b, c = np.zeros(7), np.ones(7), np.array([2.0, 0, 0, 0, 0, 0, 0])
    line = rounded(np.stack([a, b]), 0.5)
    np.testing.assert_allclose(line, np.linspace(0, 1, len(line))[:, None] * np.ones(7), atol=1e-12)
    bent = rounded(np.stack([a, b, c]), 0.5)
    np.testing.assert_allclose(bent[[0, -1]], [a, c], atol=1e-12)
    turn = np.diff(bent, axis=0)
    cosine = (turn[1:] * turn[:-1]).sum(1) / np.linalg.norm(turn[1:], axis=1) / np.linalg.norm(turn[:-1], axis=1)
    assert cosine.min() > 0.9
    v = velocities(line, DT_S)
    np.testing.assert_allclose(v, v[:, :1] * np.ones(7), atol=1e-9)
