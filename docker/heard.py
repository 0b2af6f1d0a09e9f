#!/usr/bin/env python3
"""Exit code 0 if what is named (planner, guard, simulation) was heard on /diagnostics, and not of an error."""

from __future__ import annotations

import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

LONGEST_S = 8.0
"""Finding one another takes 2 to 4 s, and each node speaks once a second."""


def main(names: list[str]) -> int:
    """Listen until each of ``names`` was heard, or time is over."""
    said: dict[str, DiagnosticStatus] = {}
    rclpy.init(args=[])
    node = rclpy.create_node("heard", enable_rosout=False, start_parameter_services=False)

    def hear(message: DiagnosticArray) -> None:
        said.update((status.name, status) for status in message.status)

    node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    end = time.monotonic() + LONGEST_S
    while not said.keys() >= set(names) and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    rclpy.shutdown()
    for name in names:
        print(f"{name}: {said[name].message if name in said else f'not heard in {LONGEST_S:g} s'}")
    return int(not all(name in said and said[name].level != DiagnosticStatus.ERROR for name in names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["planner"]))
