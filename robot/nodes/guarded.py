"""The guard on the graph: plans and beats in, services, its mode, and diagnostics; for whichever node holds it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory as TrajectoryMessage

from dfplanner.types import DFPlannerError
from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import (
    COMMANDS,
    ERROR,
    LATCHED,
    OK,
    SENSORS,
    WARN,
    diagnostics,
    status,
    trajectory_of,
)
from dfplanner_robot.nodes.gate import Gate
from dfplanner_robot.nodes.machines import Machine, load
from dfplanner_robot.nodes.parameters import Param, Parameters
from dfplanner_robot.settings import SafetySettings
from dfplanner_robot.states import Mode, Reason

LEVELS = {Mode.READY: OK, Mode.ACTIVE: OK, Mode.FAULT: ERROR}
"""Of modes in diagnostics; the others are warnings."""


def checked_box(box: Any) -> None:
    """Raises DFPlannerError unless it is empty, or a lower and an upper corner."""
    if len(box) and (len(box) != 6 or not all(a < b for a, b in zip(box[:3], box[3:], strict=True))):
        raise DFPlannerError(f"workspace is {list(box)}; expected x, y, z of the lower corner, then of the upper")


MODEL = (
    Param("model", "", "the arm and its surroundings, a file in MJCF; '': the bundled arm; maze2d-umaze: a ball"),
    Param("velocity_limit", 1.5, "rad/s, of joints of a model without the numeric velocity_limit", 0.01, 100.0),
    Param("acceleration_limit", 6.0, "rad/s^2, likewise", 0.1, 1000.0),
    Param("jerk_limit", 100.0, "rad/s^3, likewise", 1.0, 100000.0),
)
"""Which arm it is."""
TOLERANCES = (
    Param("plan_timeout_s", 0.5, "an arm that follows a stream of plans brakes without a new one", 0.05, 10.0, True),
    Param("heartbeat_timeout_s", 0.08, "or without the planner's heartbeat, after so long", 0.03, 10.0, True),
    Param("sensor_timeout_s", 0.08, "age of the last reading, at most", 0.01, 1.0, True),
    Param("late_s", 0.3, "age of a plan's stamp, at most", 0.0, 5.0, True),
    Param("ahead_s", 0.5, "how far in the future a plan may begin", 0.0, 10.0, True),
    Param("longest_s", 30.0, "how long a plan may last", 1.0, 600.0, True),
    Param("jump_rad", 0.1, "between the arm and the begin of a plan, at rest", 0.0, 0.5, True),
    Param("tracking_rad", 0.15, "between measured and commanded position, at rest", 0.01, 1.0, True),
    Param("max_slowdown", 2.0, "a plan that is too fast may be made so many times as slow", 1.0, 10.0, True),
    Param("resume_after_s", -1.0, "after a plan's fault it resumes by itself; below 0: it waits", -1.0, 3600.0, True),
)
"""What may be changed while the arm moves."""
SHARES = (
    Param("velocity_share", 0.95, "of the arm's velocity limits, what commands may use", 0.01, 1.0),
    Param("acceleration_share", 0.45, "of the acceleration limits, likewise", 0.01, 1.0),
    Param("jerk_share", 1.0, "of the jerk limits, likewise", 0.01, 1.0),
    Param("clearance_m", 0.02, "distance that is kept from the surroundings", 0.0, 0.5),
    Param("self_clearance_m", 0.005, "distance that links keep from one another", 0.0, 0.5),
    Param("workspace", (), "box for the hand: x, y, z of its lower, then of its upper corner, m", check=checked_box),
)
"""What may not."""


def tolerances(params: Parameters) -> dict[str, float | None]:
    """The settings that may change, as the guard has them."""
    found: dict[str, float | None] = {p.name: params[p.name] for p in TOLERANCES}
    if params["resume_after_s"] < 0:
        found["resume_after_s"] = None
    return found


def machine_of(params: Parameters) -> Machine:
    """The arm that the parameters ``MODEL`` say; raises DFPlannerError where it cannot be had."""
    return load(*(params[p.name] for p in MODEL))


def gate_of(params: Parameters, machine: Machine, dt_s: float) -> Gate:
    """The guard that the parameters say, ticked every ``dt_s`` seconds."""
    shares = {p.name: params[p.name] for p in SHARES if p.name.endswith("_share")}
    settings = SafetySettings(dt_s=dt_s, **shares, **tolerances(params))  # pyright: ignore[reportArgumentType]
    box = np.reshape(params["workspace"], (2, 3)) if len(params["workspace"]) else None
    around = machine.surroundings(params["clearance_m"], params["self_clearance_m"], box)
    return Gate(machine.limits, settings, around, params["autostart"])


class Reports:
    """A node's statuses on ``/diagnostics``: once a second, and when ``soon`` is called, from any thread."""

    def __init__(self, node: Node, now: Callable[[], float]) -> None:
        self.sources: list[Callable[[], DiagnosticStatus]] = []
        """What is told; each may raise, to end the node."""
        self._now, self._out = now, node.create_publisher(DiagnosticArray, names.DIAGNOSTICS, COMMANDS)
        node.create_timer(1.0, self.tell, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._waker = node.create_guard_condition(self.tell)

    def soon(self) -> None:
        """Tell it as soon as messages are dealt with."""
        self._waker.trigger()

    def tell(self) -> None:
        """Publish."""
        self._out.publish(diagnostics(self._now(), [source() for source in self.sources]))


class Sparing:
    """A log in which lines of a kind come once a second at most: the first at once, then the last, and of how many.

    ``say`` takes a line; ``clock`` gives seconds.
    """

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._waiting: dict[str, tuple[int, str]] = {}
        self._due: dict[str, float] = {}

    def note(self, kind: str, line: str) -> None:
        """A line, said now or later."""
        self._waiting[kind] = self._waiting.get(kind, (0, ""))[0] + 1, line
        self.tell()

    def tell(self) -> None:
        """Says what is due; to be called now and then."""
        now = self._clock()
        for kind in [k for k in self._waiting if now >= self._due.get(k, now)]:
            n, line = self._waiting.pop(kind)
            self._due[kind] = now + 1.0
            self._say(line + f" (the last of {n})" * (n > 1))


class Guarded:
    """A gate's ears and mouth in a node: plans come on ``topic``; ``now`` is the arm's clock.

    ``ticked`` is to be called after each tick, from whichever thread ticks.
    """

    def __init__(
        self,
        node: Node,
        gate: Gate,
        topic: str,
        now: Callable[[], float],
        reports: Reports,
        facts: Callable[[], dict[str, object]],
    ) -> None:
        self.gate, self.now, self._log, self._facts = gate, now, node.get_logger(), facts
        self._reports, self._joints = reports, node.resolve_topic_name(names.JOINT_STATES)
        self._warnings = Sparing(lambda line: self._log.warning(line))  # rclpy wants a call for each severity
        self._words = Sparing(lambda line: self._log.info(line))
        self._state = node.create_publisher(String, names.GUARD_STATE, LATCHED)
        node.create_subscription(TrajectoryMessage, topic, self._planned, COMMANDS)
        node.create_subscription(Header, names.HEARTBEAT, lambda _: gate.beat(now()), SENSORS)
        for name in names.GUARD_SERVICES:
            node.create_service(Trigger, name, self._service(name.rsplit("/", 1)[1]))
        reports.sources.append(self._status)

    def ticked(self) -> None:
        """Tells of changes of mode, if there were any, as soon as messages are dealt with."""
        if self.gate.changes:
            self._reports.soon()

    def _planned(self, message: TrajectoryMessage) -> None:
        try:
            verdict = self.gate.propose(self.now(), trajectory_of(message))
        except Exception as e:  # an exception in a callback would end the node, and the guard with it
            verdict = self.gate.refuse(self.now(), f"the message cannot be read ({type(e).__name__}: {e})")
        if verdict.reason is Reason.NOT_READY:  # any other refusal is a change of mode, and told as that
            self._warnings.note("not ready", f"a plan is refused: {verdict.detail}")
        self.ticked()

    def _service(self, what: str) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.success, response.message = True, self.gate.ask(what, self.now())
            except DFPlannerError as e:
                response.success, response.message = False, str(e)
            self.ticked()
            return response

        return answer

    def _status(self) -> DiagnosticStatus:
        """For diagnostics; tells the modes on the way."""
        changes = [self.gate.changes.popleft() for _ in range(len(self.gate.changes))]
        for mode, why in changes:
            log = self._warnings if mode in (Mode.BRAKING, Mode.STOPPED, Mode.FAULT) else self._words
            log.note(f"{mode.value}, {why.split(':')[0]}", f"{mode.value}: {why}")
        self._warnings.tell()
        self._words.tell()
        facts = self.gate.facts()
        mode = Mode(facts["mode"])
        for entered in [m for m, _ in changes] or [mode]:
            self._state.publish(String(data=entered.value))
        detail = facts["detail"]
        if mode is Mode.IDLE and self.now() <= 0:
            detail = "waits for simulated time on /clock: none came"
        elif mode is Mode.IDLE and str(facts["reason"]).startswith("sensor"):
            detail = f"waits for joint states on {self._joints}: {detail}"
        words = f"{mode.value}: {detail}" if detail else mode.value
        return status("guard", LEVELS.get(mode, WARN), words, {**facts, **self._facts()}, names.GUARD)
