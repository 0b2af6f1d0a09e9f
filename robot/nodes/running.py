"""A node's life: started, spun until SIGINT or SIGTERM, and ended clean with code 0."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from dfplanner.types import DFPlannerError
from dfplanner_robot.nodes.ticking import MESSAGES, prioritised
from dfplanner_robot.nodes.transport import without_shared_memory

SLICE_S = 0.1
"""Seconds after which the spinning looks whether it should end."""
DISCOVERED_S = 1.5
"""Seconds after which nodes know of each other."""


def run(make: Callable[[], Any], args: Sequence[str] | None = None, urgent: bool = False) -> int:
    """Spin the node that ``make`` builds until SIGINT or SIGTERM: the exit code of the process, then 0.

    If the node has a method ``close``, it is called first, while the graph still stands: there threads end and last
    words are said. The second signal ends the process at once. A DFPlannerError, or a parameter's refusal, on the way
    up is told in its sentence, code 1; what a callback raises is raised, after the same end. ``urgent``: messages are
    dealt with at a real-time priority, if the system permits.
    """
    ending = _Ending()
    if urgent:
        prioritised(MESSAGES)
    node = None
    try:
        try:
            begun(args)
            node = make()
        except (DFPlannerError, ParameterException) as e:
            print(f"{sys.argv[0]}: {e}", file=sys.stderr)
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        looks = time.monotonic() + DISCOVERED_S
        try:
            while not ending.asked:
                executor.spin_once(timeout_sec=SLICE_S)
                if time.monotonic() >= looks:
                    looks = math.inf
                    _warn_of_namesakes(node)
        finally:
            if hasattr(node, "close"):
                node.close()
            executor.shutdown()
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        try_shutdown()


def begun(args: Sequence[str] | None = None) -> None:
    """Begins with ROS; raises DFPlannerError where its arguments, or the environment, are not understood."""
    without_shared_memory()
    try:  # rclpy's own handlers would take the graph away under the threads that still publish
        rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as e:  # all of rclpy's are
        why = str(e).split(", at /")[0].removeprefix("failed to initialize rcl: ")
        raise DFPlannerError(f"ROS does not start: {why}; see the words after --ros-args, and ROS_DOMAIN_ID") from e


def _warn_of_namesakes(node: Node) -> None:
    """Two of a name command the same arm, or answer the same calls, and neither knows of the other."""
    mine = node.get_name(), node.get_namespace()
    if (others := node.get_node_names_and_namespaces().count(mine) - 1) > 0:
        whole = node.get_fully_qualified_name()
        node.get_logger().warning(
            f"{others} more of the name {whole} on this graph: both would speak to the same arm; "
            "end one, or set another ROS_DOMAIN_ID"
        )


class _Ending:
    """Notes the first signal that asks for the end, and hands the next to the system."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
