"""The maze's ball as a body of the planner: its motion against MuJoCo's, walls, goals, plans of a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dfplanner.cli.ros import Guard, Planner, Sim, parameters
from dfplanner.types import DFPlannerError
from dfplanner_envs.maze2d import Maze2DEnv
from dfplanner_envs.mazes import CELL_OFFSET, DT_S, MAZES, in_wall
from dfplanner_robot.core import CoreSettings, Request
from dfplanner_robot.nodes.ball import CLEARANCE_M, Ball, BallCore, BallPlanner
from dfplanner_robot.nodes.bodies import body_of
from dfplanner_robot.nodes.machines import load
from dfplanner_robot.planners import Infers
from dfplanner_robot.seams import ending
from dfplanner_robot.settings import JointReading

MACHINE = load("maze2d-umaze")
BALL = Ball(MACHINE, MAZES["umaze"])
LIMITS = MACHINE.limits
MIDDLE = np.array([0.8, 0.8])
ZERO = np.zeros(2)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def smooth(rng: np.random.Generator, steps: int, most: float) -> np.ndarray:
    """Controls (steps, 2) up to ``most`` that change as slowly as a model's do."""
    t = np.arange(steps)[:, None] * DT_S
    wave = np.sin(2 * np.pi * (rng.uniform(0.5, 2.0, 2) * t + rng.uniform(0, 1, 2)))
    return most * wave * np.minimum(1.0, np.arange(1, steps + 1) / 5)[:, None]


def test_velocities_are_those_of_the_environment_away_from_walls(rng: np.random.Generator) -> None:
    for _ in range(10):
        env = Maze2DEnv("large")
        env.reset(seed=0, options={"start": [2.8, 0.8], "velocity": [0.0, 0.0]})
        controls = smooth(rng, 20, 0.5)
        seen = np.array([env.step(u.astype(np.float32))[0] for u in controls])
        assert env.data.ncon <= 1, "it must not have met a wall"
        made = Ball(load("maze2d-large"), MAZES["large"]).steered(np.array([2.8, 0.8]), ZERO, ZERO, controls)
        np.testing.assert_allclose(made, seen[:, 2:], atol=0.02)
        single = BALL.freely(seen[4, 2:], controls[5])
        np.testing.assert_allclose(single, seen[5, 2:], atol=1e-6)


@pytest.mark.parametrize("name", MAZES)
def test_whatever_is_planned_keeps_limits_and_clear_of_walls(name: str, rng: np.random.Generator) -> None:
    maze = MAZES[name]
    ball = Ball(load(f"maze2d-{name}"), maze)
    core = BallCore(ball, CoreSettings(dt_s=DT_S, brake_share=0.8))
    walls = np.argwhere(maze.walls) - CELL_OFFSET
    near = np.inf
    for cell in [*maze.free_cells] * 3:
        start = np.array(cell) - CELL_OFFSET
        controls = np.repeat(rng.uniform(-1.5, 1.5, (8, 2)), 12, axis=0)  # with jumps, and beyond what motors can
        made = ball.steered(start, ZERO, ZERO, controls)
        request = Request(0.0, np.append(start, ZERO), start, 0, None, start, ZERO, ZERO)
        way = ending(core._path(request, made / ball.limits.velocity), core._gentle, DT_S)
        peaks = way.curve.peaks()
        assert (peaks.velocity <= 0.95 * ball.limits.velocity).all()
        assert (peaks.acceleration <= 0.9 * ball.limits.acceleration).all()
        assert (peaks.jerk <= ball.limits.jerk).all() and way.curve.ends_at_rest()
        q = way.curve.at(np.arange(0, way.end, 0.002)).q
        near = min(near, float((np.abs(q[:, None] - walls).max(2) - 0.5).min()))
    assert near > 0.1, "the ball's radius"
    assert near < 0.1 + 2 * CLEARANCE_M, "walls were in the way at all"


def test_goals_are_places_in_the_maze_and_those_in_walls_are_refused_in_a_sentence() -> None:
    body = body_of("maze2d-umaze")
    assert np.allclose(body.place(np.array([2.8, 1.7, 9.0])).place, [2.8, 1.7]), "z is ignored"
    moved = body.place(np.array([2.8, 0.35, 0.0])).place
    assert not in_wall(MAZES["umaze"], moved) and np.allclose(moved, [2.8, 0.42]), "it cannot be in touch with a wall"
    for wrong in ((1.8, 1.8, 0.0), (-3.0, 0.8, 0.0), (99.0, 99.0, 0.0)):
        with pytest.raises(DFPlannerError, match=r"lies in a wall of maze umaze, or outside it; the middle .* \("):
            body.place(np.array(wrong))
    both = body.posture(JointReading(("ball_y", "ball_x"), 0.0, np.array([1.7, 2.8])))
    assert np.allclose(both.place, [2.8, 1.7]) and both.as_planners_have_it(2) is both.place
    with pytest.raises(DFPlannerError, match="expected one for each of ball_x, ball_y"):
        body.posture(JointReading(("ball_x",), 0.0, np.array([1.0])))


def test_a_body_is_the_arm_or_a_maze_s_ball() -> None:
    arm, ball = body_of(""), body_of("multi2d-large")
    assert len(arm.limits) == 7 and not arm.defaults and len(arm.hello[0]) == 17
    assert ball.limits.names == ("ball_x", "ball_y") and ball.defaults["checkpoint"] == "maze2d-large"
    assert ball.hello[0].shape == (4,) and ball.core().observation(0.0) is None
    states = np.arange(8.0).reshape(2, 4)
    assert np.array_equal(ball.drawn(states), [[0, 1, 0], [4, 5, 0]])
    for wrong in ("maze2d-huge", "arm.xml"):
        with pytest.raises(DFPlannerError, match="maze2d-umaze"):
            body_of(wrong)


def test_a_simulated_ball_s_guard_lets_its_motors_do_what_plans_ask_of_them() -> None:
    assert parameters(Sim(model="maze2d-umaze"))[2:4] == ["-p", "acceleration_share:=0.9"]
    assert parameters(Guard(model="arm.xml"))[2:] == parameters(Planner(model="maze2d-umaze"))[2:] == []


class Server:
    """Answers with full force in x, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[np.ndarray, np.ndarray]] = []

    def infer(self, observation: Any, goal: Any, **_: Any) -> Any:
        self.asked.append((np.array(observation), np.array(goal)))
        states = np.tile(observation, (11, 1))
        return SimpleNamespace(actions=np.tile([1.0, 0.0], (10, 1)), states=states, levels=np.arange(11))


def asked(server: Server, request: Request) -> Any:
    return BallPlanner(BALL)(cast(Infers, server), request)


def test_a_plan_is_asked_for_from_where_the_held_actions_lead_and_begins_with_them() -> None:
    server, goal = Server(), np.array([2.5, 2.6])
    held = np.tile([0.0, 0.1], (4, 1))
    v = held[0] * LIMITS.velocity
    seen = np.array([0.81, 0.79, *(v - 0.01)])
    answer = asked(server, Request(5.0, seen, goal, 4, 2, MIDDLE, v, ZERO, held))
    (here, told) = server.asked[0]
    np.testing.assert_allclose(here, [0.81, 0.79 + 0.04 * v[1], *(v - 0.01)])
    assert np.allclose(told, [2.9, 2.9]), "the nearest goal in its cell that a model was trained for"
    assert answer.actions.shape == (14, 2) and np.array_equal(answer.actions[:4], held)
    new = answer.actions[4:] * LIMITS.velocity
    assert (np.diff(new[:, 0]) > 0).all() and np.allclose(new[:, 1], v[1], rtol=0.1)
    assert len(answer.states) == len(answer.levels) == 15 and np.array_equal(answer.levels[:5], [0, 0, 0, 0, 0])


def test_within_the_goal_s_cell_the_ball_goes_straight() -> None:
    server, goal = Server(), np.array([0.6, 1.0])
    answer = asked(server, Request(5.0, np.array([*MIDDLE, 0, 0]), goal, 0, None, MIDDLE, ZERO, ZERO))
    assert not server.asked and answer.actions.shape == (30, 2)
    v = BALL.straight(MIDDLE, ZERO, ZERO, goal, 200)
    q = MIDDLE + np.cumsum(v, axis=0) * DT_S
    assert np.abs(q[-1] - goal).max() < 0.01 and np.abs(v[-1]).max() < 0.01
    away = q - goal
    assert np.allclose(away[:, 0], -away[:, 1], atol=1e-6), "on a straight line"
