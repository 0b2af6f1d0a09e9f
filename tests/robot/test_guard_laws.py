"""The guard, whatever comes: no command beyond a limit, a brake within 100 ms for every fault, and rest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as cases
from hypothesis import strategies as st

from dfplanner.types import DFPlannerError
from dfplanner_robot.drill import drill
from dfplanner_robot.fakes import KINDS, FakePlanner, FaultInjector, violations
from dfplanner_robot.limits import commanded
from dfplanner_robot.rig import HOME, TICK_S, make_rig, three_joints
from dfplanner_robot.safety import Mode, Outcome
from dfplanner_robot.states import EXPLAINED
from dfplanner_robot.trajectory import slowed

LIMITS = three_joints()
NAMES, J, DT = LIMITS.names, len(LIMITS), TICK_S


# What must hold whatever comes


def check(drilled, faults: int) -> None:
    assert drilled.violations == () and len(drilled.faults) == faults
    for f in drilled.faults:
        if KINDS[f.kind].brakes:
            assert f.reason is not None, f
            assert f.to_brake_s <= 0.1 + 1e-9, f
            assert f.mode is EXPLAINED[f.reason][1] or f.mode is Mode.FAULT, f
        else:
            assert f.reason is None and f.mode is Mode.ACTIVE, f
    assert np.mean([f.speed > 0.1 for f in drilled.faults]) > 0.8  # there was something to brake


def test_faults_one_after_another():
    check(drill(LIMITS, HOME, 2 * len(KINDS), seed=1), 2 * len(KINDS))


@pytest.mark.slow
def test_a_thousand_faults():
    check(drill(LIMITS, HOME, 1000, seed=0), 1000)


@given(st.integers(0, 2**32 - 1), st.sampled_from([30.0, 500.0, 50_000.0]), st.booleans())
@cases(max_examples=25)
def test_no_command_breaks_a_limit_whatever_comes(seed, jerk, at_the_edge):
    """Random plans, good and bad, fast and slow, at random times, with random faults; then silence."""
    rng = np.random.default_rng(seed)
    limits = three_joints(jerk)
    home = np.where(rng.random(J) < 0.5, limits.lower, limits.upper) if at_the_edge else HOME
    rig = make_rig(limits, home, resume_after_s=0.04, plan_timeout_s=0.3)
    planner, injector = FakePlanner(limits, rng, share=float(rng.uniform(0.1, 1.2))), FaultInjector(limits, rng)
    for _ in range(60):
        if rng.random() < 0.1:
            injector.end()
            if rng.random() < 0.5:
                injector.begin()
        injector.clock(rig.clock)
        if rig.guard.mode is Mode.FAULT:
            injector.end()
            with suppress(DFPlannerError):  # not sound yet
                rig.guard.reset(rig.clock())
        if rng.random() < 0.4:
            state = rig.state()
            if rng.random() < 0.3:
                planner.forget()
            for plan in injector.plan(planner.plan(rig.clock(), state.q)):
                plan = slowed(plan, float(rng.choice([1.0, 1.0, 0.5, 2.0])))
                rig.guard.propose(rig.clock(), replace(plan, stamp=plan.stamp + rng.choice([0, -0.05, 0.03])))
        reading = injector.reading(rig.arm.reading(rig.clock.advance(DT)))
        command = rig.guard.tick(rig.clock(), reading)
        rig.arm.step(DT, command.position)
        assert command.outcome in Outcome and (command.outcome is Outcome.BRAKE) == (
            command.mode not in (Mode.READY, Mode.ACTIVE)
        )
        assert command.velocity is not None
        assert not limits.exceeded(velocity=command.velocity, acceleration=command.acceleration).any()
    rig.tick(300, read=False)
    assert rig.guard.mode is Mode.FAULT and not np.diff(np.array(rig.arm.commands[-10:]), axis=0).any()
    assert rig.arm.violations(DT) == []
    # and a little inside: what commands may use
    assert (
        violations(
            rig.arm.commands, replace(commanded(limits, inset_rad=0), lower=limits.lower, upper=limits.upper), DT
        )
        == []
    )


@given(st.integers(0, 2**32 - 1), st.floats(0.003, 0.03))
@cases(max_examples=15)
def test_jitter_of_the_ticks_is_not_commanded(seed, jitter):
    """Ticks that come early or late are still commands one tick apart."""
    rng = np.random.default_rng(seed)
    rig = make_rig()
    planner = FakePlanner(LIMITS, rng)
    base = rig.clock()
    for k in range(1, 80):
        now = base + k * DT + float(rng.uniform(0, jitter))
        rig.clock.now = now
        if k % 5 == 0:
            rig.guard.propose(now, planner.plan(now, rig.arm.q))
        rig.arm.step(DT, rig.guard.tick(now, rig.arm.reading(now)).position)
    assert rig.arm.violations(DT) == []
    assert rig.guard.counts["tick_gap"] == 0


def test_violations_are_found():
    """The meter itself: one bad command among good ones is seen."""
    q = np.tile(HOME, (50, 1))
    assert violations(q, LIMITS, DT) == []
    for bad in (np.array([3.0, 0, 0]), HOME + np.array([0.05, 0, 0])):
        assert violations(np.insert(q, 25, bad, 0), LIMITS, DT)
    turn = 1 - np.cos(9 * np.arange(200)[:, None] * DT)  # begins at rest, but with full acceleration at once
    assert violations(HOME + np.array([0.2, 0, 0]) * turn, three_joints(100.0), DT)[0].startswith("jerk")
    assert violations(np.zeros((0, J)), LIMITS, DT) == []
