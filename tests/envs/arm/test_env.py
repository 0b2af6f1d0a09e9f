"""ArmReach as an environment: the checker, one and many, what it reports, what it forgives."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dfplanner_envs  # noqa: F401  (registers the environments)
from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.baselines import HELD_OUT, RandomPolicy, Readings, ScriptPolicy, rollout_arm
from dfplanner_envs.arm.env import VectorArmReach
from dfplanner_envs.arm.sim import DT_S, ArmSim
from dfplanner_envs.arm.task import APART, CLEARANCE, reach_task

ID = "dfplanner/ArmReach-v0"
TASK = reach_task()
LIMITS = TASK.arm.limits


@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker_has_nothing_to_say():
    check_env(gym.make(ID).unwrapped)


def test_many_are_what_single_ones_are_bit_for_bit():
    n = 3
    ours = gym.make_vec(ID, n, max_episode_steps=12)
    assert isinstance(ours.unwrapped, VectorArmReach)
    mode = ours.metadata["autoreset_mode"]
    theirs = gym.vector.SyncVectorEnv([lambda: gym.make(ID, max_episode_steps=12)] * n, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    left, right = ours.reset(seed=5), theirs.reset(seed=5)
    for _ in range(30):
        assert np.array_equal(left[0], right[0])
        assert np.array_equal(left[-1]["goal"], right[-1]["goal"])
        action = rng.uniform(-0.5, 0.5, (n, 7)).astype(np.float32)
        left, right = ours.step(action), theirs.step(action)
        for a, b in zip(left[1:4], right[1:4], strict=True):
            assert np.array_equal(a, b)


def test_what_is_drawn_can_be_asked():
    starts, goals = TASK.draw_each([np.random.default_rng(i) for i in range(20)])
    assert TASK.checker.free(starts).all() and not LIMITS.exceeded(starts).any()
    assert (np.linalg.norm(TASK.chain.hand(starts) - goals, axis=1) >= APART).all()
    ends, able = TASK.posture(goals)
    assert able.all() and np.abs(TASK.chain.hand(ends) - goals).max() < 1e-3 and CLEARANCE > 0
    alone = TASK.draw_each([np.random.default_rng(13)])
    assert np.array_equal(alone[0][0], starts[13]) and np.array_equal(alone[1][0], goals[13])


def test_the_hand_follows_the_command_and_success_is_being_there_slowly():
    env = gym.make(ID)
    q = TASK.arm.rest
    obs, _ = env.reset(seed=0, options={"start": q, "goal": TASK.chain.hand(q + 0.3 * np.eye(7)[0])})
    speed, passed, info = 0.8 / LIMITS.velocity[0], 0, {}
    for t in range(16):  # 0.4 rad at 0.8 rad/s at most: past the goal, too fast to count
        share = min(1, (t + 1) / 4) if t < 10 else max(0, 1 - (t - 9) / 4)
        obs, reward, ended, _, info = env.step([share * speed, 0, 0, 0, 0, 0, 0])
        passed += np.linalg.norm(obs[:3] - info["goal"]) < 0.02
        assert not ended and reward == 0 and not info["clamped"] and not info["violation"]
    # Four steps to speed up, six at speed, four to slow down: the area under a trapezoid.
    assert passed and abs(obs[3] - q[0] - 0.8 * DT_S * 10) < 0.01 and abs(obs[10]) < 0.05
    for _ in range(40):
        back = float(np.clip((q[0] + 0.3 - obs[3]) * 2, -0.2, 0.2))
        obs, reward, ended, _, info = env.step([back / LIMITS.velocity[0], 0, 0, 0, 0, 0, 0])
        if ended:
            break
    assert ended and reward == 1 and info["success"] and not info["collision"]
    assert np.linalg.norm(obs[:3] - info["goal"]) <= 0.02


def test_a_collision_ends_the_episode_and_is_no_success():
    env = gym.make(ID)
    env.reset(seed=0, options={"start": TASK.arm.rest, "goal": [0.3, 0.3, 0.5]})
    for _ in range(80):
        _, reward, ended, _, info = env.step([0, 0.3, 0, 0.1, 0, 0, 0])
        if ended:
            break
    assert ended and reward == 0 and info["collision"] and not info["success"]


def test_whatever_is_commanded_no_limit_is_exceeded_before_a_contact():
    """The wildest commands that there are: the ends of the range and noise, out of every step's budget."""
    rng, n = np.random.default_rng(2), 24
    sim = ArmSim(TASK.arm, TASK.chain, n)
    sim.put(np.arange(n), TASK.draw_each([np.random.default_rng(i) for i in range(n)])[0])
    untouched, clamped = np.ones(n, bool), np.zeros(n, bool)
    for t in range(60):
        wild = rng.uniform(-3, 3, (n, 7)) if t % 7 < 5 else rng.choice([-3.0, 3.0], (n, 7))
        happened = sim.step(wild * LIMITS.velocity)
        untouched &= ~happened.collision
        clamped |= happened.clamped
        assert not (happened.violation & untouched).any()
    assert clamped.all() and untouched.any()


def test_a_joint_driven_to_its_end_stops_before_it():
    sim = ArmSim(TASK.arm, TASK.chain, 2)
    sim.put(np.arange(2), np.tile([0, -0.6, 0, -2.0, 0, 1.7, 0.0], (2, 1)))
    for _ in range(80):
        happened = sim.step(np.outer([1.0, -1.0], [0, 0, 0, 0, 0, 0, LIMITS.velocity[6]]))
        assert not happened.violation.any()
    assert 0 < LIMITS.upper[6] - sim.q[0, 6] < 0.05 and 0 < sim.q[1, 6] - LIMITS.lower[6] < 0.05
    assert np.abs(sim.qd).max() < 1e-3


def test_wrong_input_is_told():
    env = gym.make(ID).unwrapped
    many = VectorArmReach(2)
    with pytest.raises(DFPlannerError, match="no option 'gaol'"):
        env.reset(options={"gaol": [0, 0, 0]})
    with pytest.raises(DFPlannerError, match="3 finite numbers"):
        env.reset(options={"goal": [0.1, np.nan, 0.2]})
    with pytest.raises(DFPlannerError, match="beyond a joint's end"):
        env.reset(options={"start": np.full(7, 9.0)})
    with pytest.raises(DFPlannerError, match="there touch"):
        env.reset(options={"start": TASK.arm.rest + np.array([0.9, 1.5, 0, 0.7, 0, 0, 0])})
    with pytest.raises(DFPlannerError, match=r"\(7,\) was expected"):
        env.step(np.zeros(6))
    with pytest.raises(DFPlannerError, match="no NaN"):
        env.step(np.full(7, np.nan))
    with pytest.raises(DFPlannerError, match="2 environments"):
        many.reset(seed=[1, 2, 3])
    with pytest.raises(DFPlannerError, match="booleans"):
        many.reset(options={"reset_mask": np.ones(2)})
    with pytest.raises(DFPlannerError, match="at least 1"):
        VectorArmReach(0)
    with pytest.raises(DFPlannerError, match="at least one seed"):
        rollout_arm(RandomPolicy(), [])


def test_the_script_reaches_held_out_goals_and_chance_does_not():
    script = rollout_arm(ScriptPolicy(), HELD_OUT[:8], noise=0.01, drop=0.2, latency_steps=2)
    assert script.summary() | {"steps": 0} == {
        "success": 1.0,
        "collision": 0.0,
        "violation": 0.0,
        "clamped": 0.0,
        "steps": 0,
    }
    assert (script.distance <= 0.02).all() and script.trajectories.shape[::2] == (8, 17)
    chance = rollout_arm(RandomPolicy(), HELD_OUT[:8], horizon=40)
    assert not chance.success.any() and (chance.clamped > 0).all()
    again = rollout_arm(RandomPolicy(), HELD_OUT[:8], horizon=40)
    assert np.array_equal(chance.trajectories, again.trajectories)


def test_readings_are_noisy_lost_and_late_as_asked():
    env, rng = VectorArmReach(400), np.random.default_rng(0)
    true = [env.sim.observation() + 0.001 * t for t in range(30)]
    plain = Readings(env, 0, 0, 0, 2, rng)
    shown = [plain.of(obs) for obs in true]
    assert all(np.array_equal(shown[t][0], true[max(t - 2, 0)]) for t in range(30))
    assert all((shown[t][1] == min(t, 2)).all() for t in range(30))
    noisy = Readings(env, 0.01, 0.1, 0, 0, rng)
    off = np.array([noisy.of(obs)[0] - obs for obs in true])
    assert off[..., 3:10].std() == pytest.approx(0.01, rel=0.05)
    assert off[..., 10:].std() == pytest.approx(0.1, rel=0.05)
    last, _ = noisy.of(true[0])
    np.testing.assert_allclose(last[:, :3], TASK.chain.hand(last[:, 3:10]), atol=1e-12)
    losing = Readings(env, 0, 0, 0.2, 0, rng)
    read = [losing.of(obs) for obs in true]
    held = (np.diff(np.array([seen for seen, _ in read]), axis=0) == 0).all(-1)
    assert held.mean() == pytest.approx(0.2, abs=0.02)
    for t, (seen, age) in enumerate(read):
        np.testing.assert_allclose(seen, true[0] + 0.001 * (t - age)[:, None], atol=1e-12)
