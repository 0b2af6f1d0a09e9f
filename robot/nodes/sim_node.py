"""The simulated arm as a node: joint states out, trajectories in, time its own; with the guard inside, or without."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

# Where there is no display MuJoCo draws without one; it looks at this when it is imported.
if "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.camera import Camera
from dfplanner_robot.nodes.convert import (
    COMMANDS,
    OK,
    SENSED,
    WARN,
    pose_message,
    reading_message,
    status,
    time_message,
    trajectory_of,
)
from dfplanner_robot.nodes.guarded import MODEL, SHARES, TOLERANCES, Guarded, Reports, gate_of, machine_of, tolerances
from dfplanner_robot.nodes.parameters import Param, Parameters
from dfplanner_robot.nodes.running import run
from dfplanner_robot.nodes.sim_arm import Sensors, Simulation, ticks
from dfplanner_robot.nodes.ticking import Ticker

POSE_HZ = 25.0
REPAY = 0.1
"""How much faster time passes after it stood still, until it is what it should be."""
PARAMS = (
    *MODEL,
    Param("rate_hz", 125.0, "joint states a second, at most one for each step of physics", 25.0, 1000.0),
    Param("real_time_factor", 1.0, "seconds that pass in the simulation in one of ours", 0.1, 10.0),
    Param("guard", True, "the guard stands between the topic and the arm; false: whatever comes is followed"),
    Param("autostart", True, "the guard starts by itself once readings are sound"),
    Param("camera", False, "publish pictures on ~/image, ten a second"),
    Param("seed", 0, "of noise and of what is dropped", 0, 2**31 - 1),
    Param("noise_rad", 0.0, "standard deviation of measured positions (rad) and velocities (rad/s)", 0.0, 0.1),
    Param("dropped", 0.0, "share of the readings that is lost", 0.0, 1.0),
    Param("latency_s", 0.0, "after how long a reading comes out, stamped with when it was taken", 0.0, 0.5),
    *SHARES,
    *TOLERANCES,
)


class SimNode(Node):
    """``/arm_sim``. Raises DFPlannerError on a model that cannot be simulated."""

    def __init__(self) -> None:
        super().__init__(names.SIM)
        self.params = Parameters(self, PARAMS, self._changed)
        p = self.params
        machine = machine_of(p)
        dt = float(machine.arm.model.opt.timestep)
        gate = gate_of(p, machine, dt * ticks(dt)) if p["guard"] else None
        sensors = Sensors(p["rate_hz"], p["noise_rad"], p["dropped"], p["latency_s"])
        self.sim = Simulation(machine, sensors, np.random.default_rng(p["seed"]), gate=gate)
        pace = p["real_time_factor"]
        self.ticker = Ticker(dt / pace, self._step, urgent=pace <= 1.0, repay=REPAY)
        self._joints = self.create_publisher(JointState, names.JOINT_STATES, SENSED)
        self._time = self.create_publisher(Clock, "/clock", SENSED)
        self._hand = self.create_publisher(PoseStamped, names.HAND_POSE, SENSED)
        self._every = max(1, round(1 / POSE_HZ / dt))
        self.create_service(Trigger, "~/reset", self._reset)
        reports = Reports(self, self._now)
        reports.sources.append(self._status)
        self.guarded = None
        if gate is not None:
            self.guarded = Guarded(self, gate, names.COMMAND, self._now, reports, self.ticker.facts)
        else:
            self.create_subscription(JointTrajectory, names.COMMAND, self._commanded, COMMANDS)
        self.camera = None
        if p["camera"]:
            self._pictures = self.create_publisher(Image, "~/image", SENSED)
            self.camera = Camera(machine, self.sim.qpos, self._words, self._show)
        self.sim.begun = time.time() - dt  # the first step ends now
        self.ticker.start()

    def close(self) -> None:
        """Nothing is published after this."""
        self.ticker.close()
        if self.camera is not None:
            self.camera.close()

    def _now(self) -> float:
        return self.sim.now

    def _changed(self) -> None:
        if self.sim.gate is not None:
            self.sim.gate.tolerate(**tolerances(self.params))

    def _step(self, _late: float) -> None:
        for reading in self.sim.step():
            self._joints.publish(reading_message(reading))
        if self.sim.steps % self.sim.per_tick == 0:
            self._time.publish(Clock(clock=time_message(self.sim.now)))
        if self.sim.steps % self._every == 0:
            t, place, turn = self.sim.hand_pose()
            self._hand.publish(pose_message(t, names.BASE_FRAME, place, turn))
        if self.guarded is not None:
            self.guarded.ticked()

    def _commanded(self, message: JointTrajectory) -> None:
        try:
            self.sim.command(trajectory_of(message))
        except Exception as e:  # whatever came, the arm goes on
            self.get_logger().warning(f"a trajectory is ignored: {e}", throttle_duration_sec=1.0)

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.sim.restart()
        response.success, response.message = True, "sim restarted: the arm is in its rest posture"
        return response

    def _status(self) -> DiagnosticStatus:
        self.ticker.check()
        facts = self.sim.facts()
        wrong = self.sim.touching or self.ticker.slipped_s > 0
        slow = f"; {self.ticker.slipped_s:.2f} s behind" if self.ticker.slipped_s else ""
        words = f"{self.sim.machine.name}, {'touching' if self.sim.touching else 'free'}{slow}"
        facts.update(self.ticker.facts(), real_time_factor=self.params["real_time_factor"])
        return status("simulation", WARN if wrong else OK, words, facts, names.SIM)

    def _words(self) -> str:
        return self.sim.gate.mode.value if self.sim.gate is not None else "no guard"

    def _show(self, picture: np.ndarray | str) -> None:
        """A picture (H, W, 3) from the camera's thread, or why there is none."""
        if isinstance(picture, str):
            self.get_logger().warning(picture)
            return
        height, width, _ = picture.shape
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        image.header.stamp, image.header.frame_id = time_message(self.sim.now), "camera"
        image.data.frombytes(picture.tobytes())
        self._pictures.publish(image)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is asked to end."""
    return run(SimNode, args, urgent=True)


if __name__ == "__main__":
    sys.exit(main())
