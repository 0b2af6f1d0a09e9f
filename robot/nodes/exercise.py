"""A client that puts the graph to the test: goals to reach, and a stream of plans with a fault in it now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory as TrajectoryMessage

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import JointLimits
from dfplanner_robot.fakes import KINDS, FakePlanner, FaultInjector
from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import (
    BEATS,
    COMMANDS,
    EACH,
    SENSORS,
    pose_message,
    reading_of,
    seconds,
    time_message,
    trajectory_message,
    trajectory_of,
)
from dfplanner_robot.settings import JointReading
from dfplanner_robot.trajectory import Floats, JointTrajectory

FAULTS = tuple(kind for kind in KINDS if kind.startswith(("plan: ", "planner ")))
"""What a planner can do wrong; readings and the clock are the arm's."""
BEAT_S, PLAN_S, MOVES_S = 0.02, 0.1, 0.4
"""Between heartbeats, between plans, and how long the arm moves before a fault."""
GIVES_UP_S = 3.0
"""So long a fault is watched."""
AT_REST, MOVING, SLOW = 0.01, 0.05, 0.1
"""rad/s of the fastest joint: below, above, and below where a goal is reached."""
TRIES = 10
"""Streams until it moves: at first not everyone has found everyone, and a plan may be refused for the surroundings."""


@dataclass(frozen=True)
class Seen:
    """What came of a fault, as a client of the graph sees it; seconds from the fault, by the arm's clock."""

    kind: str
    speed: float
    """rad/s of the fastest joint at the fault."""
    to_brake_s: float
    """Until the guard's braking was heard of; NaN: it did not brake."""
    to_rest_s: float
    """Until readings showed rest."""
    state: str
    """How the guard waits then."""


class Exercise(Node):
    """The client. ``limits``: the arm's. Spun by its own methods; one thread."""

    def __init__(self, limits: JointLimits) -> None:
        super().__init__("exercise")
        self.limits = limits
        self.readings: list[tuple[float, JointReading]] = []
        """When each came, by this machine's clock, and the reading."""
        self.states: list[tuple[float, str]] = []
        """What the guard said, and when by the arm's clock."""
        self.commands: list[tuple[float, JointTrajectory]] = []
        """What was sent to the arm, and when it came here by the machine's clock."""
        self.hand: Floats | None = None
        self.told: dict[str, dict[str, str]] = {}
        """The last values of each status on /diagnostics, and its words under ``message``."""
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self.create_subscription(JointState, names.JOINT_STATES, self._read, SENSORS)
        self.create_subscription(String, names.GUARD_STATE, self._state, EACH)
        self.create_subscription(DiagnosticArray, names.DIAGNOSTICS, self._tell, COMMANDS)
        self.create_subscription(PoseStamped, names.HAND_POSE, self._show, SENSORS)
        self.create_subscription(TrajectoryMessage, names.COMMAND, self._command, COMMANDS)
        self._plans = self.create_publisher(TrajectoryMessage, names.COMMAND, COMMANDS)
        self._beats = self.create_publisher(Header, names.HEARTBEAT, BEATS)
        self._goals = self.create_publisher(PoseStamped, names.GOAL_POSE, COMMANDS)
        self._resume = self.create_client(Trigger, f"/{names.GUARD}/resume")
        self._restart = self.create_client(Trigger, f"/{names.SIM}/reset")
        self.restarts = 0
        """How often the simulated arm was put back to rest, for it did not follow plans where it was."""

    @property
    def now(self) -> float:
        """The arm's time: the last reading's stamp, and what passed since."""
        if not self.readings:
            return time.time()
        came, reading = self.readings[-1]
        return reading.stamp + time.time() - came

    @property
    def state(self) -> str:
        """The guard's, as last heard."""
        return self.states[-1][1] if self.states else ""

    @property
    def speed(self) -> float:
        """rad/s of the fastest joint, as last read."""
        v = self.readings[-1][1].velocities if self.readings else None
        return 0.0 if v is None else float(np.abs(v).max())

    def _state(self, message: String) -> None:
        self.states.append((self.now, message.data))

    def _read(self, message: JointState) -> None:
        self.readings.append((time.time(), reading_of(message)))

    def _show(self, message: PoseStamped) -> None:
        p = message.pose.position
        self.hand = np.array([p.x, p.y, p.z])

    def _tell(self, message: DiagnosticArray) -> None:
        for s in message.status:
            self.told[s.name] = {"message": s.message, **{v.key: v.value for v in s.values}}

    def _command(self, message: TrajectoryMessage) -> None:
        if message.points and seconds(message.header.stamp) > 0:
            self.commands.append((time.time(), trajectory_of(message)))

    def spin(self, wait_s: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Deals with messages for so long, or until something is true: whether it is."""
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            if until():
                return True
            self._executor.spin_once(timeout_sec=0.002)
        return until()

    def reach(self, goal: Floats, within_m: float, wait_s: float) -> float | None:
        """Sends a goal (3,); the seconds until the hand was there and nearly at rest, or None."""
        self._goals.publish(pose_message(self.now, names.BASE_FRAME, goal))
        began = time.monotonic()

        def there() -> bool:
            return self.hand is not None and self.speed < SLOW and bool(np.linalg.norm(self.hand - goal) < within_m)

        return time.monotonic() - began if self.spin(wait_s, there) else None

    def faults(self, n: int, rng: np.random.Generator, progress: Callable[[], object] = lambda: None) -> list[Seen]:
        """n faults, kinds taking turns, each in a stream of plans; raises DFPlannerError if it gets not ready."""
        planner, injector = FakePlanner(self.limits, rng), FaultInjector(self.limits, rng, FAULTS)
        seen = []
        for i in range(n):
            injector.end()
            if not self._moves(planner, injector):
                self._anew()
                if not self._moves(planner, injector):
                    why = self.told.get("guard", {}).get("detail") or "nothing"
                    guard = f"{self.state or 'silent'}, and spoke last of: {why}"
                    raise DFPlannerError(f"the arm does not follow plans; the guard is {guard}")
            seen.append(self._fault(FAULTS[i % len(FAULTS)], planner, injector))
            progress()
        return seen

    def _moves(self, planner: FakePlanner, injector: FaultInjector) -> bool:
        """Streams plans until the arm moves, and whether it does."""
        self._ready()
        for _ in range(TRIES):
            planner.forget()  # after a plan that was refused the next begins where the arm is
            self._stream(planner, injector, MOVES_S, lambda: False)
            if self.speed > MOVING:
                return True
        return False

    def _anew(self) -> None:
        """The simulated arm in its rest posture: a fault may leave it where every plan would touch something."""
        self.restarts += 1
        self._restart.call_async(Trigger.Request())
        self.spin(2.0)

    def _ready(self) -> None:
        """At rest, and plans are taken."""

        def ready() -> bool:
            return self.state == "ready" and self.speed < AT_REST

        for _ in range(20):
            if self.state == "stopped":
                self._resume.call_async(Trigger.Request())
            if self.spin(0.5, ready):
                return
        raise DFPlannerError(f"the guard does not get ready: it is {self.state or 'silent'}")

    def _fault(self, kind: str, planner: FakePlanner, injector: FaultInjector) -> Seen:
        heard, speed, brakes = len(self.states), self.speed, KINDS[kind].brakes
        injector.begin(kind)
        silent = kind == "planner silent"
        began = self.now
        if not silent:
            self._send(planner, injector)
            began = self.now

        def braked() -> bool:
            return any(said == "braking" for _, said in self.states[heard:])

        def rest() -> bool:
            return braked() and self.speed < AT_REST

        if brakes:
            self.spin(GIVES_UP_S, rest)
        else:
            self._stream(planner, injector, 0.3, braked)
        at = next((t for t, s in self.states[heard:] if s == "braking"), float("nan"))
        came = self.readings[-1][1].stamp
        self.spin(0.2, lambda: self.state != "braking")
        return Seen(kind, speed, at - began, came - began if rest() else float("nan"), self.state)

    def _stream(self, planner: FakePlanner, injector: FaultInjector, last_s: float, until: Callable[[], bool]) -> None:
        """Plans and heartbeats for so long."""
        end, beat, plan = self.now + last_s, 0.0, 0.0
        while (now := self.now) < end and not until():
            if now >= beat:
                self._beats.publish(Header(stamp=time_message(now)))
                beat = now + BEAT_S
            if now >= plan:
                self._send(planner, injector)
                plan = now + PLAN_S
            self.spin(0.002)

    def _send(self, planner: FakePlanner, injector: FaultInjector) -> None:
        q = self.readings[-1][1].positions
        for plan in injector.plan(planner.plan(self.now, q)):
            try:
                self._plans.publish(trajectory_message(plan))
            except (TypeError, ValueError, AssertionError):  # what no message can hold cannot be sent either
                continue
