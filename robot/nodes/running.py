"""A node's life: started, spun until SIGINT or SIGTERM, and ended clean with code 0."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from dfplanner.types import DFPlannerError
from dfplanner_robot.nodes.ticking import MESSAGES, prioritised

SLICE_S = 0.1
"""Seconds after which the spinning looks whether it should end."""


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
    # rclpy's own handlers would take the graph away under the threads that still publish.
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        try:
            node = make()
        except (DFPlannerError, ParameterException) as e:
            print(f"{sys.argv[0]}: {e}", file=sys.stderr)
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not ending.asked:
                executor.spin_once(timeout_sec=SLICE_S)
        finally:
            if hasattr(node, "close"):
                node.close()
            executor.shutdown()
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        try_shutdown()


class _Ending:
    """Notes the first signal that asks for the end, and hands the next to the system."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
