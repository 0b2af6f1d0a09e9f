"""What the planner node drives: the bundled arm, or the ball of a maze. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.task import reach_task
from dfplanner_envs.mazes import DT_S, MAZES
from dfplanner_robot.core import Answer, ArmCore, CoreSettings, Request
from dfplanner_robot.nodes.ball import BRAKES, Ball, BallCore, BallPlanner
from dfplanner_robot.nodes.goals import Goal, at_rest, hand_of, joints_of, reachable
from dfplanner_robot.nodes.machines import load
from dfplanner_robot.nodes.names import is_maze
from dfplanner_robot.planners import Infers, remote
from dfplanner_robot.settings import JointReading
from dfplanner_robot.trajectory import Floats

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

BRAKE_SHARE = 0.3
"""Of the arm's acceleration, at a trajectory's end: with more, what is between its points is too much for the guard."""


@dataclass(frozen=True, eq=False)
class Body:
    """What is driven, as the node needs to know it."""

    name: str
    """In sentences: an arm, a ball."""
    limits: JointLimits
    hello: tuple[Floats, Goal]
    """An observation (obs,) and a goal to begin with."""
    place: Callable[[Floats], Goal]
    """Looks at a place (3,) in metres; raises DFPlannerError where the body cannot be there."""
    posture: Callable[[JointReading], Goal]
    """Likewise at joints."""
    core: Callable[[], ArmCore]
    """Makes one."""
    asks: Callable[[Infers, Request], Answer]
    """Asks a server's client for the answer to a request."""
    drawn: Callable[[Floats], Floats]
    """States (T, obs) of a plan to where they are drawn (T, 3)."""
    slow: float
    """rad/s or m/s below which every joint must be for it to have arrived."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the node that are other than the arm's."""


def body_of(model: str) -> Body:
    """The bundled arm for '', the ball for a maze such as maze2d-umaze; raises DFPlannerError on anything else."""
    if not model:
        return arm()
    machine = load(model) if is_maze(model) else None
    if machine is None or machine.maze is None:
        known = ", ".join(f"maze2d-{name}" for name in MAZES)
        raise DFPlannerError(f"the planner has no body {model!r}; give nothing for the bundled arm, or one of {known}")
    ball = Ball(machine, machine.maze)
    start = ball.goal(machine.start)
    settings = CoreSettings(dt_s=DT_S, brake_share=BRAKES)
    return Body(
        name="ball",
        limits=machine.limits,
        hello=(np.append(machine.start, np.zeros(2)), start),
        place=ball.goal,
        posture=lambda reading: ball.goal(joints_of(machine.limits, reading)),
        core=lambda: BallCore(ball, settings),
        asks=BallPlanner(ball),
        drawn=lambda states: np.append(states[:, :2], np.zeros((len(states), 1)), axis=1),
        slow=0.3,
        defaults={
            "checkpoint": f"maze2d-{machine.maze.name}",
            # Where the way forks, plans that are followed for a chunk and a half, of more evaluations, go back less.
            "replan_every": {"medium": 22, "large": 30}.get(machine.maze.name, 5),
            "action_chunks": 2,
            "steps": {"medium": 3, "large": 4}.get(machine.maze.name, 2),
            "action_steps": 3,
            "goal_tolerance_m": 0.1,
        },
    )


def arm() -> Body:
    """The bundled arm, whose goals are places of its hand."""
    task = reach_task()
    return Body(
        name="arm",
        limits=task.arm.limits,
        hello=at_rest(task),
        place=partial(reachable, task),
        posture=lambda reading: reachable(task, hand_of(task, reading)),
        core=lambda: ArmCore(task.arm.limits, task.chain.hand, CoreSettings(brake_share=BRAKE_SHARE)),
        asks=remote,
        drawn=lambda states: states[:, :3],
        slow=0.1,
    )
