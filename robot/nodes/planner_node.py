"""The planner as a ROS 2 lifecycle node: goals and joint states in, joint trajectories out. Imports no torch.

Configure starts a process that plans and makes a first plan, activate starts the control loop, deactivate stops the arm
smoothly, cleanup ends the process. A goal is where the hand, or a maze's ball, shall be: a pose, of which the position
counts, or a posture, whose place it is. Run it with ``python -m dfplanner_robot.nodes.planner_node --ros-args ...``.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleState
from rclpy.timer import Timer
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from dfplanner.types import DFPlannerError
from dfplanner_robot.core import CoreSettings
from dfplanner_robot.nodes import convert, names
from dfplanner_robot.nodes.bodies import body_of
from dfplanner_robot.nodes.ears import Ears
from dfplanner_robot.nodes.goals import GoalDesk
from dfplanner_robot.nodes.guard_line import GuardLine
from dfplanner_robot.nodes.lifecycle import SteadyLifecycleNode, also_at_signals, told
from dfplanner_robot.nodes.parameters import Parameters
from dfplanner_robot.nodes.pilot import Move, Pilot
from dfplanner_robot.nodes.planner_params import MODEL, kept, parameters
from dfplanner_robot.nodes.reports import Troubles, planner_status
from dfplanner_robot.nodes.running import run
from dfplanner_robot.nodes.services import Turn, answering
from dfplanner_robot.nodes.voice import LastBeats, Pulse, Voice
from dfplanner_robot.nodes.worker import Launch, Worker
from dfplanner_robot.states import Mode

LAST_S = 0.3
"""After the lifecycle's shutdown the node stays so long, for its answer to get out."""


class PlannerNode(SteadyLifecycleNode):
    """The node; what it says and hears is in ``dfplanner_robot.nodes.names``.

    ``ended`` is called after the lifecycle's shutdown: there is nothing left to do for the node. ``end`` is set from
    outside while a transition may be under way, and makes it give up.
    """

    def __init__(self, ended: Callable[[], None] = lambda: None, **options: Any) -> None:
        super().__init__(names.PLANNER, **options)
        self.end, self.ended = threading.Event(), ended
        self.pilot: Pilot | None = None
        self._coming: Worker | None = None
        self.troubles = Troubles()
        self.body = body_of(Parameters(self, (MODEL,))["model"])
        self.params = Parameters(self, parameters(self.body.defaults), self._changed, self._together)
        self._timer: Timer | None = None
        self._pulse, self._shown = Pulse(), None
        self._waker = self.create_guard_condition(self._look)
        self._desk = GoalDesk(self.body.place, self.body.posture, self._wake)
        self._voice = Voice(self, self.body.drawn)
        self._last_beats = LastBeats(self, self._beat)
        log = self.get_logger()
        self._ears = Ears(
            self.resolve_topic_name(names.JOINT_STATES),
            lambda line: log.warning(line),  # rclpy wants a line of code for each severity
            lambda line: log.info(line),
        )
        self._guard = GuardLine(self, self._on_guard, self._on_reason)
        self._listen()
        self._serve()
        self.create_timer(1.0, self.report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if self.params["autostart"]:
            self._starter = self.create_timer(0.0, self._start, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _listen(self) -> None:
        self.create_subscription(JointState, names.JOINT_STATES, self._on_reading, convert.SENSORS)
        self.create_subscription(PoseStamped, names.GOAL_POSE, self._on_pose, convert.COMMANDS)
        self.create_subscription(JointState, names.GOAL_JOINTS, self._on_posture, convert.COMMANDS)

    def _serve(self) -> None:
        *quick, reload = names.PLANNER_SERVICES
        for name, act in zip(quick, (self._stop, self._resume, self._reset), strict=True):
            log = self.get_logger().info
            answer = answering(lambda act=act: act(self._configured()), log, self._look)
            self.create_service(Trigger, name, answer)
        # A group of its own: while the answer is awaited, the others go on.
        waits: Any = self._reload
        self.create_service(Trigger, reload, waits, callback_group=MutuallyExclusiveCallbackGroup())

    def _wake(self) -> None:
        """From other threads: there is something to look at."""
        with contextlib.suppress(InvalidHandle):  # the node is gone
            self._waker.trigger()

    @property
    def now(self) -> float:
        """Seconds of the node's clock."""
        return self.get_clock().now().nanoseconds * 1e-9

    # The lifecycle

    def _start(self) -> None:
        self._starter.cancel()
        if self.life == "unconfigured":
            self.trigger_configure()
        if self.life == "inactive":
            self.trigger_activate()

    @told
    def on_configure(self, state: LifecycleState) -> None:
        """Starts the worker and waits for its first plan; fails, in a sentence, where there is none."""
        worker = self._worker()
        try:
            worker.ready(lambda: not self.end.is_set())
        except DFPlannerError as e:
            self.troubles.failed = str(e)
            self.report()
            raise
        self.troubles.failed = ""
        self._ears.listen()
        self.pilot = Pilot(self.body.core(), worker, self.params["goal_tolerance_m"], self.body.slow)
        self._changed()
        self.get_logger().info(f"plans come from {worker.launch.source}")
        self.report()

    @told
    def on_activate(self, state: LifecycleState) -> None:
        """Starts the control loop."""
        pilot = self._configured()
        pilot.core.reset()
        pilot.resume()
        self._last_beats.end()
        self._pulse = Pulse(self.params["rate_hz"])
        self._timer = self.create_timer(1 / self.params["rate_hz"], self._tick)
        self._look()

    @told
    def on_deactivate(self, state: LifecycleState) -> None:
        """Brings the arm to rest, and is silent from then on."""
        self._halt()

    @told
    def on_cleanup(self, state: LifecycleState) -> None:
        """Ends the worker; the goal is forgotten."""
        self._release()

    @told
    def on_shutdown(self, state: LifecycleState) -> None:
        """Brings the arm to rest and ends the worker."""
        self.close()
        self.create_timer(LAST_S, self.ended, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @told
    def on_error(self, state: LifecycleState) -> None:
        """After a transition that failed badly: back to unconfigured."""
        self._halt()
        self._release()

    def close(self) -> None:
        """Brings the arm to rest, which is waited for, and ends the worker; twice is once."""
        self.end.set()
        self._halt()
        self._release()
        self._desk.close()

    def _halt(self) -> None:
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
            self._out(move := self._configured().stop(self.now))
            if move is not None:
                self._last_beats.begin(move.trajectory.end - self.now)

    def _release(self) -> None:
        self._last_beats.wait()  # ending the worker takes longer than a guard waits
        workers = [self._coming, self.pilot and self.pilot.worker]
        self.pilot = self._coming = None
        self._ears.close()
        self._desk.drop()
        for worker in filter(None, workers):
            worker.close()

    def _configured(self) -> Pilot:
        if self.pilot is None:
            raise DFPlannerError("the planner is not configured; configure it first")
        return self.pilot

    # The worker

    def _worker(self) -> Worker:
        launch = Launch(**{f.name: self.params[f.name] for f in fields(Launch)})
        body = self.body
        return Worker(launch, body.hello, self.get_logger().info, self._wake, body.asks, body.name)

    async def _reload(self, request: Trigger.Request, response: Trigger.Response) -> Any:
        """A new worker beside the old one, which goes on until the new one has made a plan."""
        try:
            pilot = self._configured()
            worker = self._coming = self._worker()
            while worker.state == "starting":
                await Turn()
            self._coming = None
            if worker.state != "ready":
                raise DFPlannerError(f"{worker.reason or 'the node was cleaned up'}; the old planner goes on")
            threading.Thread(target=pilot.swap(worker).close).start()
            self._changed()
            response.success, response.message = True, f"plans come from {worker.launch.source} now"
        except DFPlannerError as e:
            response.success, response.message = False, str(e)
        self.get_logger().info(response.message)
        return response

    # Parameters

    def _together(self, values: dict[str, Any]) -> None:
        if self.pilot is not None:
            kept(self.params.values, values)

    def _changed(self) -> None:
        if (pilot := self.pilot) is not None:
            pilot.tolerance_m, pilot.backs_off = self.params["goal_tolerance_m"], self.params["backs_off"]
            dt_s = float(pilot.worker.metadata.get("dt_s", CoreSettings.dt_s))
            pilot.core.settings = replace(pilot.core.settings, dt_s=dt_s, replan_every=self.params["replan_every"])

    # Goals, readings, the guard

    def _on_reading(self, message: JointState) -> None:
        if self.pilot is not None:
            self._ears.reading(self.pilot.read(convert.reading_of(message)))

    def _on_guard(self, mode: str) -> None:
        if self.pilot is not None:
            self._ears.guard()
            self.pilot.guard_says(mode, self.now)
            self._look()

    def _on_reason(self, why: str) -> None:
        if self.pilot is not None:
            self.pilot.why = why

    def _on_pose(self, message: PoseStamped) -> None:
        p = message.pose.position
        self._to_desk(lambda desk: desk.place(message.header.frame_id, self.params["frame_id"], (p.x, p.y, p.z)))

    def _on_posture(self, message: JointState) -> None:
        self._to_desk(lambda desk: desk.posture(convert.reading_of(message)))

    def _to_desk(self, hand_in: Callable[[GoalDesk], None]) -> None:
        if self.pilot is None:
            self._refuse("the planner is not configured, and takes no goals")
        else:
            hand_in(self._desk)

    def _refuse(self, why: str) -> None:
        self.troubles.refused = why
        self.get_logger().warning(f"refused: {why}")
        self.report()

    def _take_goal(self) -> None:
        try:
            goal = self._desk.take() if self.pilot is not None else None
        except DFPlannerError as e:
            self._refuse(str(e))
            return
        if goal is not None:
            self._configured().set_goal(goal)
            self.troubles.refused = ""
            self.get_logger().info(f"the goal is {np.round(goal.place, 3).tolist()}")
            self.report()

    # The control loop

    def _tick(self) -> None:
        if self._pulse.tick():
            self._beat()
        self._look()

    def _beat(self) -> None:
        self._voice.beat(self.now, self.params["frame_id"])

    def _look(self) -> None:
        """What there is to do: in the control loop, and as soon as something came from another thread."""
        self._take_goal()
        if self._timer is not None:
            self._out(self._configured().tick(self.now))
        seen = (self.life, self.pilot and (self.pilot.phase, self.pilot.guard, self.pilot.worker.state))
        if seen != self._shown:
            self._shown = seen
            self.report()

    def _out(self, move: Move | None) -> None:
        if move is not None:
            pilot = self._configured()
            chunk = max(1, int(pilot.worker.metadata.get("chunk", 1)))
            self._voice.move(move, self.params["frame_id"], pilot.core.settings.dt_s, chunk)

    def report(self) -> None:
        """Publishes the diagnostics."""
        self.troubles.missed = self._ears.missed()
        status = planner_status(self.life, self.pilot, self.now, self.troubles, self._pulse.gaps)
        self._voice.report(self.now, status)

    # Services

    def _stop(self, pilot: Pilot) -> str:
        if self._timer is None:
            raise DFPlannerError("the planner is not active, so it moves nothing")
        self._out(pilot.stop(self.now))
        return "stopped; plans no more until it is told to resume"

    def _resume(self, pilot: Pilot) -> str:
        pilot.resume()
        asked = pilot.guard == Mode.STOPPED.value and self._guard.resume()
        return "plans again" + (", and the guard was asked to resume" if asked else "")

    def _reset(self, pilot: Pilot) -> str:
        move = pilot.reset(self.now)
        self._out(move if self._timer is not None else None)
        self.troubles.refused = ""
        self._desk.drop()
        asked = pilot.guard == Mode.FAULT.value and self._guard.reset()
        return "goal, plan and readings are forgotten" + (", and the guard was asked to reset" if asked else "")


def main(args: Sequence[str] | None = None) -> int:
    """The node until SIGINT, SIGTERM or the lifecycle's shutdown: the exit code of the process."""

    def make() -> PlannerNode:
        node = PlannerNode(ended=lambda: signal.raise_signal(signal.SIGTERM))
        also_at_signals(node.end.set)  # a transition may be under way for long
        return node

    sys.setswitchinterval(1e-3)  # other threads compute in Python too, and the control loop must not wait for them
    return run(make, args)


if __name__ == "__main__":
    raise SystemExit(main())
