"""The maze's ball as a planner's body: from forces to velocities, with walls in sight. Imports no ROS.

A maze's model plans forces of the ball's motors, an arm's core wants velocities. What lies between is the ball's own
motion, which is linear; so a plan can also be asked for from where the ball will be once it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import BALL_RADIUS, CELL_OFFSET, DT_S, MAX_SPEED, Maze, in_wall, nearest_cell
from dfplanner_robot.brake import stops
from dfplanner_robot.core import Answer, ArmCore, CoreSettings, Request
from dfplanner_robot.nodes.goals import Goal
from dfplanner_robot.nodes.machines import Machine
from dfplanner_robot.planners import Infers
from dfplanner_robot.trajectory import Floats, JointTrajectory

SPEED, PUSH, BRAKES = 0.935, 0.8, 0.8
"""Of the limits, what a plan uses, a little less than the guard's 0.95 and 0.9; and what it brakes with, before a wall
and at its end."""
EASES_S = 0.005
"""The stop at a plan's end sets in within so long."""
JOINS_S = 0.03
"""A guard joins a plan within 0.02 s, from its next tick on."""
CLEARANCE_M = 0.02
"""Between ball and wall, kept where a plan would come nearer."""
BACK_HZ = 5.0
"""A ball that is too near goes back at so many times that distance a second."""
TOLD_M = 0.1
"""Goals that the models were trained for lie so near to the numbers of a cell, on each axis."""
STRAIGHT_M_S, STIFF_HZ = 1.5, 6.0
"""Once it is no faster than this in the goal's cell, it goes straight: critically damped, at so many rad/s."""
SWITCHES = 3
"""Steps in which a force grows from nothing to its most: sooner, and between two points there would be more."""
TRIES, SOON_S = np.linspace(0.0, 1.0, 6)[:, None], 0.02
"""Shares of the way from the acceleration that is wanted to the hardest brake that are tried; which way that brakes is
said by the velocity so many seconds from now."""
BRAKED = np.add.outer(np.arange(len(TRIES)), np.arange(len(TRIES)))
"""How much of a brake a pair of these is."""
STRAIGHT_STEPS = 30
"""Actions of such a plan."""


class Ball:
    """How the ball of a maze moves: a mass with a damper, pushed by motors, in front of walls."""

    def __init__(self, machine: Machine, maze: Maze) -> None:
        model = machine.arm.model
        self.maze, self.limits = maze, machine.limits
        self.mass, self.gear = np.array(model.dof_M0), np.array(model.actuator_gear[:, 0])
        self.damping = np.array(model.dof_damping)
        self._walls = np.argwhere(maze.walls) - CELL_OFFSET
        self._reach = 0.5 + BALL_RADIUS + CLEARANCE_M
        push = PUSH * self.limits.acceleration
        self._gentle = replace(
            self.limits, velocity=SPEED * self.limits.velocity, acceleration=push, jerk=push / (SWITCHES * DT_S)
        )

    def freely(self, v: Floats, controls: Floats) -> Floats:
        """Velocities (2,) after a step with the controls (2,), as the environment has them away from walls."""
        v, u = np.clip(v, -MAX_SPEED, MAX_SPEED), np.clip(controls, -1.0, 1.0)
        return v + DT_S * (self.gear * u - self.damping * v) / (self.mass + DT_S * self.damping)

    def steered(self, q: Floats, v: Floats, a: Floats, controls: Floats) -> Floats:
        """Velocities (H, 2) at the ends of H steps with controls (H, 2), from a position, velocity, acceleration (2,).

        Limits are kept, forces change so slowly that a curve through the ends of the steps is smooth, and before a wall
        the ball brakes.
        """
        return self._led(q, v, a, len(controls), lambda k, q, v: self.freely(v, controls[k]))

    def straight(self, q: Floats, v: Floats, a: Floats, goal: Floats, steps: int) -> Floats:
        """Likewise velocities (steps, 2) straight to a goal (2,), to rest there."""

        def wanted(k: int, q: Floats, v: Floats) -> Floats:
            return v + DT_S * (STIFF_HZ**2 * (goal - q) - 2 * STIFF_HZ * v)

        return self._led(q, v, a, steps, wanted)

    def _led(
        self, q: Floats, v: Floats, a: Floats, steps: int, wanted: Callable[[int, Floats, Floats], Floats]
    ) -> Floats:
        """Velocities (steps, 2), as near to the wanted ones, of step, position and velocity, as the ball can.

        Of the accelerations between the wanted ones and the hardest brakes a step takes those after which the ball can
        still stop, on both axes, short of every wall, with the least of a brake.
        """
        gentle, made = self._gentle, np.empty((steps, 2))
        most, slew = gentle.acceleration, DT_S * gentle.jerk
        for k in range(steps):
            low, high = np.maximum(a - slew, -most), np.minimum(a + slew, most)
            near, off = self._near(q)
            speed = wanted(k, q, v)
            speed = np.where(off > 0, np.maximum(speed, BACK_HZ * off), speed)
            speed = np.where(off < 0, np.minimum(speed, BACK_HZ * off), speed)
            push = np.minimum(np.maximum((speed - v) / DT_S, low), high)
            brake = np.where(v + a * SOON_S > 0, low, high)
            tries = push + TRIES * (brake - push)
            after = v + DT_S * tries
            stop, moved = stops(after, tries, gentle), DT_S * (v + after) / 2
            reach = np.where(near, 0.0, self._reach)[:, None]
            # (walls, tries, axes) whether a wall is beside what may be passed on an axis until the ball has stopped
            away = (self._walls - q)[:, None]
            beside = (away > np.minimum(moved + stop.below, 0.0) - reach[..., None]) & (
                away < np.maximum(moved + stop.above, 0.0) + reach[..., None]
            )
            hit = (beside[:, :, None, 0] & beside[:, None, :, 1]).any(0)
            fast = stop.speed > gentle.velocity
            able = ~(hit | fast[:, None, 0] | fast[None, :, 1])
            able[-1, -1] = True
            best = np.unravel_index(np.where(able, BRAKED, np.inf).argmin(), able.shape), np.arange(2)
            a = tries[best]
            made[k] = v = after[best]
            q = q + moved[best]
        return made

    def _near(self, q: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """(W,) to which walls the ball is too near, and how far (2,) it has to go, on each axis, not to be."""
        away = self._walls - q
        far = np.abs(away)
        near = np.asarray((far < self._reach).all(axis=1))
        off = np.zeros(2)
        for wall in away[near]:
            axis = int(np.abs(wall).argmax())
            off[axis] = wall[axis] - np.copysign(self._reach, wall[axis])
        return near, off

    def cell(self, q: Floats) -> Floats:
        """The numbers (2,) of the cell around a place (2,)."""
        return np.rint(q + CELL_OFFSET)

    def told(self, goal: Floats) -> Floats:
        """What a model is told of a goal (2,): the nearest that it was trained for, in the same cell."""
        cell = self.cell(goal)
        return np.clip(goal, cell - TOLD_M, cell + TOLD_M)

    def goal(self, place: Floats) -> Goal:
        """The goal that a place (2 or 3,) in metres is, a little off a wall; raises DFPlannerError on one inside."""
        goal = np.array(place[:2], np.float64)
        if in_wall(self.maze, goal):
            raise DFPlannerError(
                f"the goal ({goal[0]:.2f}, {goal[1]:.2f}) m lies in a wall of maze {self.maze.name}, or outside it; "
                f"the middle of the free cell next to it is {self._beside(goal)}"
            )
        for wall in self._walls:
            away = wall - goal
            if (np.abs(away) < self._reach).all():
                axis = int(np.abs(away).argmax())
                goal[axis] = wall[axis] - np.copysign(self._reach, away[axis])
        return Goal(goal, goal)

    def _beside(self, place: Floats) -> str:
        x, y = np.array(nearest_cell(self.maze, place)) - CELL_OFFSET
        return f"({x:.1f}, {y:.1f})"


class BallCore(ArmCore):
    """An arm's core for the ball, whose forces change with each step.

    Between points its acceleration changes evenly; and a plan is committed for so long that a guard can join it to the
    motion before anything is new.
    """

    def __init__(self, ball: Ball, settings: CoreSettings) -> None:
        super().__init__(ball.limits, None, settings)
        self.ball = ball
        self._gentle = replace(self._gentle, jerk=self._gentle.acceleration / EASES_S)

    @property
    def expected_s(self) -> float:
        """Seconds until a plan is there and joined."""
        return super().expected_s + JOINS_S

    def towards(self, request: Request, place: Floats) -> Answer:
        """A plan straight to a place (2,) that is near, to rest there."""
        speeds, (q, v, a) = _foreseen(request, self.limits.velocity)
        new = self.ball.straight(q, v, a, place, STRAIGHT_STEPS)
        return Answer(np.concatenate([speeds[1:], new]) / self.limits.velocity)

    def _able(self, request: Request, actions: Floats) -> Floats:
        return actions  # the ball's planner steers as it can

    def _path(self, request: Request, actions: Floats) -> JointTrajectory:
        made = super()._path(request, actions)
        assert made.accelerations is not None
        # Where a point is must agree with the accelerations there, or the way from one to the next wiggles.
        a = made.accelerations
        made.positions[1:] += np.cumsum(a[:-1] - a[1:], axis=0) * self.settings.dt_s**2 / 12
        return made


class BallPlanner:
    """Asks a server of a maze's model for plans, and makes velocities of their forces.

    A plan is asked for from where the actions that are held will lead, so that the model need not know of them.
    """

    def __init__(self, ball: Ball) -> None:
        self.ball = ball

    def __call__(self, client: Infers, request: Request) -> Answer:
        """The answer to a request; raises the client's errors."""
        ball, top = self.ball, self.ball.limits.velocity
        speeds, (q, v, a) = _foreseen(request, top)
        moved = np.concatenate([_way(np.zeros(2), speeds), speeds - speeds[0]], axis=1)
        seen = request.observation + moved
        here = seen[-1]
        levels: NDArray[np.int64] | None
        if (ball.cell(here[:2]) == ball.cell(request.goal)).all() and np.abs(here[2:]).max() <= STRAIGHT_M_S:
            new = ball.straight(q, v, a, request.goal, STRAIGHT_STEPS)
            places = _way(here[:2], np.concatenate([v[None], new]))
            ahead, levels = np.concatenate([places[1:], new], axis=1), np.zeros(len(new) + 1, np.int64)
        else:
            reply = client.infer(here, ball.told(request.goal), committed=0, elapsed=None, reset=True)
            new = ball.steered(q, v, a, np.asarray(reply.actions, np.float64))
            ahead, levels = (None if reply.states is None else reply.states[1:]), reply.levels
        states = None if ahead is None else np.concatenate([seen, ahead])
        levels = None if levels is None else np.concatenate([np.zeros(len(seen) - 1, np.int64), levels])
        return Answer(np.concatenate([speeds[1:], new]) / top, states, levels)


def _foreseen(request: Request, top: Floats) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
    """Velocities (1 + N, 2) from where a request's plan begins, of the N held actions; and the state they lead to."""
    held = np.zeros((0, 2)) if request.held is None else request.held * top
    speeds = np.concatenate([request.v[None], held])
    a = (speeds[-1] - speeds[-2]) / DT_S if len(held) else request.a
    return speeds, (_way(request.q, speeds)[-1], speeds[-1], a)


def _way(q: Floats, speeds: Floats) -> Floats:
    """Places (N, 2) from the first, q (2,), on, at velocities (N, 2) that change evenly between steps."""
    return q + np.concatenate([np.zeros((1, 2)), np.cumsum((speeds[1:] + speeds[:-1]) / 2 * DT_S, axis=0)])
