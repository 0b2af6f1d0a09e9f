"""What the nodes of the arm's side decide, without ROS: the gate, the plain controller, physics and sensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfplanner.types import DFPlannerError
from dfplanner_robot.checks import Refused
from dfplanner_robot.fakes import FakePlanner
from dfplanner_robot.filling import filled
from dfplanner_robot.nodes.gate import Gate
from dfplanner_robot.nodes.machines import load
from dfplanner_robot.nodes.sim_arm import Follower, Sensors, Simulation, ticks
from dfplanner_robot.rig import three_joints
from dfplanner_robot.settings import SafetySettings
from dfplanner_robot.states import Mode, Outcome, Reason
from dfplanner_robot.trajectory import JointTrajectory

REACH = load()
NAMES, REST = REACH.limits.names, REACH.arm.rest
AWAY = REST + np.array([0.4, 0.1, 0.2, 0.2, 0.3, -0.2, 0.5])
BEGUN = 1_795_582_030.25

TWO_JOINTS = """<mujoco><option integrator="implicitfast"/><worldbody>
  <geom name="wall" type="box" pos="0 0 -1" size="1 1 .1"/>
  <body name="a" pos="0 0 0.5">
    <joint name="j1" axis="0 1 0" range="-90 90"/>
    <geom type="capsule" size=".05" fromto="0 0 0 .4 0 0"/>
    <body name="b" pos=".4 0 0">
      <joint name="j2" axis="0 1 0" range="-90 90"/>
      <geom type="capsule" size=".04" fromto=".1 0 0 .4 0 0"/>
    </body>
  </body></worldbody>
  <actuator><position joint="j1" kp="2000" kv="200"/><position joint="j2" kp="500" kv="50"/></actuator></mujoco>"""
"""One servo a joint, with much damping, and weight that nobody carries."""


def simulated(machine=REACH, guard: bool = True, sensors: Sensors | None = None, **settings) -> Simulation:
    dt = float(machine.arm.model.opt.timestep)
    made = SafetySettings(dt_s=dt * ticks(dt), heartbeat_timeout_s=0.08, **settings)
    gate = Gate(machine.limits, made, machine.surroundings(0.02, 0.005), True) if guard else None
    return Simulation(machine, sensors or Sensors(), np.random.default_rng(0), BEGUN, gate)


def run(sim: Simulation, seconds: float) -> list:
    return [r for _ in range(round(seconds / sim.dt_s)) for r in sim.step()]


def to(sim: Simulation, goal: np.ndarray, seconds: float = 0.1) -> JointTrajectory:
    """Positions alone, stamped now."""
    return JointTrajectory(sim.machine.limits.names, 0.0, np.array([seconds]), goal[None])


# Positions alone


@given(st.integers(1, 8), st.integers(0, 1000), st.floats(0.01, 3.0))
def test_what_is_filled_passes_its_points_monotonely_and_keeps_limits(n: int, seed: int, pace: float) -> None:
    limits, rng = three_joints(), np.random.default_rng(seed)
    q = rng.uniform(limits.lower, limits.upper, (n + 1, 3))
    times = np.cumsum(rng.uniform(0.1, 1.0, n)) * pace
    made = filled(JointTrajectory(limits.names, 5.0, times, q[1:]), q[0], limits, SafetySettings(longest_s=1e9))
    curve, peaks = made.curve, made.curve.peaks()
    np.testing.assert_allclose(made.positions, q)
    assert made.velocities is not None
    assert not made.velocities[[0, -1]].any()
    for name in ("velocity", "acceleration", "jerk"):
        assert (getattr(peaks, name) <= getattr(limits, name) * 1.001).all()
    between = curve.at(np.linspace(curve.start, curve.end, 300)).q
    slack = 0.15 * np.abs(np.diff(q, axis=0)).max()  # of accelerations at the points
    assert (between >= q.min(0) - slack).all()
    assert (between <= q.max(0) + slack).all()


def test_what_has_velocities_is_left_as_it_is_and_what_is_malformed_refused() -> None:
    limits = three_joints()
    good = JointTrajectory(limits.names, 0.0, np.array([1.0]), np.zeros((1, 3)))
    fast = replace(good, velocities=np.ones((1, 3)))
    assert filled(fast, np.zeros(3), limits, SafetySettings()) is fast
    for other, reason in (
        (replace(good, names=("a", "b")), Reason.NAMES),
        (replace(good, positions=np.full((1, 3), np.nan)), Reason.NOT_FINITE),
        (replace(good, positions=np.full((1, 3), 1e200)), Reason.NOT_FINITE),
        (replace(good, positions=np.full((1, 3), 9.0)), Reason.POSITION),
        (replace(good, times=np.array([-1.0])), Reason.FORM),
        (replace(good, positions=np.zeros((2, 3))), Reason.FORM),
    ):
        with pytest.raises(Refused) as refused:
            filled(other, np.zeros(3), limits, SafetySettings())
        assert refused.value.reason is reason


# The guard inside


def test_it_starts_by_itself_and_a_whole_plan_is_followed_to_its_end() -> None:
    sim = simulated()
    gate = sim.gate
    assert gate is not None
    run(sim, 0.1)
    assert gate.mode is Mode.READY
    assert gate.propose(sim.now, to(sim, AWAY, 3.0)).outcome is Outcome.PASS
    readings = run(sim, 3.5)
    assert np.abs(readings[-1].positions - AWAY).max() < 1e-4
    assert gate.facts()["stale"] == 0
    assert (sim.violations, sim.touched) == (0, 0)
    assert [mode for mode, _ in gate.changes] == [Mode.READY, Mode.ACTIVE, Mode.READY]


@pytest.mark.parametrize(("beats", "reason"), [(True, Reason.STALE), (False, Reason.SILENT)])
def test_who_beat_before_a_plan_is_watched(beats: bool, reason: Reason) -> None:
    sim = simulated()
    gate = sim.gate
    assert gate is not None
    run(sim, 0.1)
    gate.beat(sim.now)
    gate.propose(sim.now, to(sim, AWAY, 3.0))
    begun, entered = sim.now, 0.0
    while gate.mode is Mode.ACTIVE and sim.now < begun + 2:
        sim.step()
        if beats:
            gate.beat(sim.now)
        entered = sim.now
    assert gate.facts()["reason"] == reason.value
    assert entered - begun < (0.52 if beats else 0.1)
    readings = run(sim, 0.5)
    assert gate.mode is Mode.READY
    assert np.abs(readings[-1].velocities).max() < 1e-3
    assert sim.violations == 0


def wandering(sim: Simulation, seconds: float, fault: bool = True):
    """A stream of plans at 10 Hz with beats, and now and then one that is spoiled; yields after each step."""
    gate = sim.gate
    assert gate is not None
    planner, rng = FakePlanner(sim.machine.limits, np.random.default_rng(1), share=0.15), np.random.default_rng(2)
    run(sim, 0.1)
    for i in range(round(seconds / sim.dt_s)):
        if i % 4 == 0:
            gate.beat(sim.now)
        if i % 20 == 0 and gate.mode in (Mode.READY, Mode.ACTIVE):
            plan = planner.plan(sim.now, sim.data.qpos[sim.machine.arm.qpos])
            if fault and rng.random() < 0.1:
                plan = replace(plan, positions=np.where(rng.random(plan.positions.shape) < 0.1, np.nan, plan.positions))
            if gate.propose(sim.now, plan).outcome is Outcome.BRAKE:
                planner.forget()
        if gate.mode is Mode.STOPPED:
            gate.ask("resume", sim.now)
            planner.forget()
        sim.step()
        yield


def test_commands_between_ticks_have_continuous_acceleration_also_when_it_brakes() -> None:
    wanted = []
    drive = REACH.drive

    def recorded(data, q, v, a) -> None:
        wanted.append((q, v, a))
        drive(data, q, v, a)

    sim = simulated(replace(REACH, drive=recorded))
    for _ in wandering(sim, 12.0):
        pass
    assert sim.gate is not None
    assert str(sim.gate.facts()["not_finite"]) not in ("0", "1")
    q, v, a = (np.array(x) for x in zip(*wanted, strict=True))
    limits, dt = REACH.limits, sim.dt_s
    np.testing.assert_allclose(np.diff(q, axis=0) / dt, (v[1:] + v[:-1]) / 2, atol=0.02)
    assert (np.abs(np.diff(v, axis=0)) <= limits.acceleration * dt).all()
    assert (np.abs(np.diff(a, axis=0)) <= 2 * limits.jerk * dt).all()  # the jerk of a quintic between two ticks
    assert (sim.violations, sim.touched) == (0, 0)


def test_what_is_told_ahead_joins_what_was_told_before() -> None:
    sim = simulated()
    assert sim.gate is not None
    before, checked = None, 0
    for i, _ in enumerate(wandering(sim, 6.0)):
        if i % sim.per_tick or sim.steps % sim.per_tick != 1:
            continue
        new = sim.gate.ahead(0.1)
        if before is not None and new is not None and new.stamp > before.stamp:
            then, now = before.curve.at(new.stamp), new.curve.at(new.stamp)
            np.testing.assert_allclose(now.q, then.q, atol=2e-6)
            np.testing.assert_allclose(now.v, then.v, atol=1e-3)
            checked += 1
        before = new
    assert checked > 300
    assert before is not None
    assert before.curve.ends_at_rest()


def test_a_restart_forgets_all_but_the_counts() -> None:
    sim = simulated()
    gate = sim.gate
    assert gate is not None
    run(sim, 0.1)
    gate.propose(sim.now, to(sim, AWAY, 1.0))
    run(sim, 0.5)
    sim.restart()
    assert gate.mode is Mode.IDLE
    readings = run(sim, 0.2)
    assert gate.mode is Mode.READY
    assert np.abs(readings[-1].positions - REST).max() < 1e-6
    assert gate.facts()["pass"] == 1
    assert sim.violations == 0


def test_the_operator_is_answered_in_sentences() -> None:
    gate = Gate(REACH.limits, SafetySettings(), REACH.surroundings(0.02, 0.005), False)
    assert gate.ask("stop", 1.0) == "nothing is commanded"
    for what, words in (("start", "joint states"), ("resume", "expected stopped"), ("reset", "expected fault")):
        with pytest.raises(DFPlannerError, match=words):
            gate.ask(what, 1.0)
    assert gate.ahead(0.1) is None


# Without a guard


def test_a_plain_controller_follows_from_the_stamp_on_and_refuses_what_jumps_or_ends_in_motion() -> None:
    follower = Follower(REACH, REST)
    plan = JointTrajectory(NAMES, 10.0, np.array([1.0]), AWAY[None])
    follower.take(9.0, plan)
    assert not np.abs(follower.at(9.9)[0] - REST).any()
    assert np.abs(follower.at(10.4)[1]).max() > 0.1
    np.testing.assert_allclose(follower.at(30.0)[0], AWAY)
    q, v, _ = follower.at(10.4)
    follower.take(10.4, replace(plan, stamp=0.0, positions=REST[None]))
    np.testing.assert_allclose(follower.at(10.4)[0], q, atol=1e-9)
    np.testing.assert_allclose(follower.at(10.4)[1], v, atol=1e-9)
    for bad, words in (
        (replace(plan, positions=AWAY[None] + 1.0, velocities=np.zeros((1, 7)), times=np.array([0.01])), "jump"),
        (replace(plan, velocities=np.ones((1, 7))), "ends in motion"),
        (replace(plan, stamp=1.0), "over"),
        (replace(plan, names=NAMES[1:]), "expected"),
    ):
        with pytest.raises(DFPlannerError, match=words):
            follower.take(10.5, replace(bad, stamp=bad.stamp if bad.stamp == 1.0 else 0.0))


# Sensors and machines


def test_readings_come_late_noisily_or_not_at_all_as_asked() -> None:
    plain = run(simulated(guard=False), 2.0)
    assert 249 <= len(plain) <= 251
    sim = simulated(guard=False, sensors=Sensors(100.0, 0.01, 0.5, 0.1))
    assert not run(sim, 0.09)
    readings = run(sim, 4.0)
    assert 0.4 < len(readings) / 400 < 0.6
    assert sim.now - readings[-1].stamp >= 0.1 - 1e-6
    assert 0.005 < np.std([r.positions - REST for r in readings]) < 0.02
    with pytest.raises(DFPlannerError, match="share"):
        Sensors(dropped=1.5)


def test_an_arm_with_one_damped_servo_a_joint_is_followed_closely_against_its_weight(tmp_path: Path) -> None:
    file = tmp_path / "two.xml"
    file.write_text(TWO_JOINTS)
    machine = load(str(file), 2.0, 8.0, 200.0)
    assert machine.limits.names == ("j1", "j2")
    sim = simulated(machine)
    assert sim.gate is not None
    run(sim, 0.1)
    sim.gate.propose(sim.now, to(sim, np.array([0.4, -0.6])))
    off = [np.abs(r.positions - sim._commanded[0]).max() for _ in range(1000) for r in sim.step()]
    assert max(off) < 0.03
    assert np.abs(sim.data.qpos - [0.4, -0.6]).max() < 1e-3
    position, _ = machine.hand_pose(sim.data)
    np.testing.assert_allclose(machine.hand()(sim.data.qpos[None])[0], position, atol=1e-3)


def test_models_that_will_not_do_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DFPlannerError, match="there is no model"):
        load(str(tmp_path / "none.xml"))
    file = tmp_path / "bad.xml"
    for text, words in (
        ("<mujoco><", "cannot be loaded"),
        (TWO_JOINTS.split("<actuator>")[0] + "</mujoco>", "position servo"),
        (TWO_JOINTS.replace('name="j2"', "").replace('joint="j2"', 'joint="j1"'), "several position servos"),
    ):
        file.write_text(text)
        with pytest.raises(DFPlannerError, match=words):
            load(str(file))
    file.write_text(TWO_JOINTS.replace('pos="0 0 0.5"', 'pos="0 0 -0.86"'))
    with pytest.raises(DFPlannerError, match=r"rest posture these are too near: .*wall"):
        load(str(file)).surroundings(0.02, 0.005)


def test_the_ball_goes_where_it_is_sent_and_walls_are_felt() -> None:
    machine = load("maze2d-umaze")
    sim = simulated(machine)
    gate = sim.gate
    assert gate is not None
    run(sim, 0.1)
    goal = np.array([0.8, 2.8])
    assert gate.propose(sim.now, to(sim, goal, 1.0)).outcome is not Outcome.BRAKE
    readings = run(sim, 2.0)
    assert np.abs(readings[-1].positions - goal).max() < 0.01
    assert sim.touched == 0
    gate.propose(sim.now, to(sim, np.array([1.8, 1.8]), 1.0))  # through the wall in the middle
    run(sim, 2.0)
    assert sim.touched > 0
    assert gate.facts()["reason"] == Reason.TRACKING.value


def test_touching_and_broken_limits_are_counted() -> None:
    sim = simulated(guard=False)
    low = REST.copy()
    low[1], low[3] = 1.2, -1.0  # the hand in the table
    sim.command(to(sim, low, 2.0))
    run(sim, 4.0)
    assert sim.touched >= 1
    sim.restart()
    sim.data.qvel[0] = 3.0
    before = sim.violations
    run(sim, 0.1)
    assert sim.violations > before


def test_the_bundled_arm_is_the_environment_s() -> None:
    from dfplanner_envs.arm.model import reach_arm

    arm = reach_arm()
    for name in ("lower", "upper", "velocity", "acceleration", "jerk", "effort"):
        np.testing.assert_array_equal(getattr(arm.limits, name), getattr(REACH.limits, name))
    np.testing.assert_array_equal(arm.rest, REACH.arm.rest)
    data = mujoco.MjData(REACH.arm.model)  # pyright: ignore
    REACH.drive(data, AWAY, REST, REST)
    np.testing.assert_array_equal(data.ctrl, np.concatenate([AWAY, REST]))
