"""The guard as a node of its own, before a real arm's joint_trajectory_controller."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory as TrajectoryMessage

from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import COMMANDS, SENSORS, reading_of, trajectory_message
from dfplanner_robot.nodes.guarded import MODEL, SHARES, TOLERANCES, Guarded, Reports, gate_of, machine_of, tolerances
from dfplanner_robot.nodes.parameters import Param, Parameters
from dfplanner_robot.nodes.running import run
from dfplanner_robot.nodes.ticking import Ticker
from dfplanner_robot.seams import lasting
from dfplanner_robot.settings import JointReading
from dfplanner_robot.states import Mode
from dfplanner_robot.trajectory import JointTrajectory

DT_S = 0.01
AHEAD_S = 0.1
"""The controller is told so much of what comes, and the stop after it."""
LEAD_S = 0.02
"""Commands are due so long after their tick, so that they are with the controller before."""
LAPSE_S, CREEP_S = 0.05, 2e-4
"""Ticks farther off were missed, or the clock jumped; what is nearer is made up by so much a tick."""
EASE_S = 0.25
"""After a lapse the arm is led so long to where it is taken to rest: what was told last may not have been sent."""
CLOCK_S = 0.3
"""A simulated clock comes by messages, as readings do, and may come so much later."""
PARAMS = (
    *MODEL,
    Param(
        "publish_hz",
        50.0,
        "trajectories a second for the controller, beside those when the course changes",
        15.0,
        100.0,
    ),
    Param("autostart", False, "start without being asked, once readings are sound and the arm is at rest"),
    *SHARES,
    *TOLERANCES,
)


class GuardNode(Node):
    """``/arm_guard``. Raises DFPlannerError on a model that cannot be had, or touches something at rest."""

    def __init__(self) -> None:
        super().__init__(names.GUARD)
        self.params = Parameters(self, PARAMS, self._changed)
        self.gate = gate_of(self.params, machine_of(self.params), DT_S)
        simulated = self.get_parameter("use_sim_time").value
        if simulated:
            self.gate.tolerate(sensor_ahead_s=CLOCK_S)
        self.ticker = Ticker(DT_S, self._tick, self._now if simulated else time.monotonic, urgent=True)
        self._latest: JointReading | None = None
        self._every = max(1, round(1 / DT_S / self.params["publish_hz"]))
        self._ticks = 0
        self._due = -math.inf
        """When the last tick was due, by the arm's clock."""
        self._told: JointTrajectory | None = None
        """What the controller was told last."""
        self._silent = False
        self._rests = math.inf
        """When the controller has come to rest by itself, by the arm's clock, and is to be told where."""
        self._out = self.create_publisher(TrajectoryMessage, names.COMMAND, COMMANDS)
        self.create_subscription(JointState, names.JOINT_STATES, self._read, SENSORS)
        reports = Reports(self, self._now)
        self.guarded = Guarded(self, self.gate, names.GUARDED, self._now, reports, self._facts)
        self.ticker.start()

    def close(self) -> None:
        """No command is given after this: the controller stops by itself."""
        self.ticker.close()

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds / 1e9

    def _changed(self) -> None:
        self.gate.tolerate(**tolerances(self.params))

    def _read(self, message: JointState) -> None:
        reading = reading_of(message)
        if self.gate.own(reading):
            self._latest = reading

    def _tick(self, late: float) -> None:
        now = self._now()
        off = now - late - self._due - DT_S
        if abs(off) <= LAPSE_S and late <= LAPSE_S:  # punctual: jitter is not commanded
            self._due += DT_S + min(max(off, -CREEP_S), CREEP_S)
        else:
            self._due = now - late
            self._lapsed(now)
        self.gate.tick(now, self._latest)
        if late > LEAD_S and self.gate.revised and self.gate.mode is Mode.BRAKING:  # a brake that began in the past
            self._lapsed(now)
        self._ticks += 1
        self._silent &= self.gate.mode is Mode.BRAKING
        if not self._silent and (self._ticks % self._every == 0 or self.gate.revised):
            ahead = self.gate.ahead(AHEAD_S)
            self._told = ahead and replace(ahead, stamp=ahead.stamp - now + self._due + LEAD_S)
            if self._told is not None:
                self._out.publish(trajectory_message(self._told))
        elif self._silent and self._told is not None and self._due >= self._rests:
            self._rests = math.inf
            q = self._told.positions[-1:]
            still = np.zeros_like(q)
            rest = JointTrajectory(self._told.names, self._due, np.array([EASE_S]), q, still, still)
            self._out.publish(trajectory_message(rest))
        self.guarded.ticked()

    def _lapsed(self, now: float) -> None:
        """Ticks were missed, or the clock jumped: the controller stops by itself, and is told nothing until it has."""
        if (told := self._told) is not None:
            gone = min(max(0.0, self._due - told.stamp), float(told.times[-1]))
            self.gate.lapse(now, lasting(told, EASE_S), gone)
            self._silent = self.gate.mode is Mode.BRAKING
            self._rests = self._due + float(told.times[-1]) - gone

    def _facts(self) -> dict[str, object]:
        self.ticker.check()
        return self.ticker.facts()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is asked to end."""
    return run(GuardNode, args, urgent=True)


if __name__ == "__main__":
    sys.exit(main())
