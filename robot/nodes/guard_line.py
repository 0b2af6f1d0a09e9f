"""The guard, as the planner node hears and asks it."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.client import Client
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import COMMANDS, LATCHED


class GuardLine:
    """``says`` is told the guard's mode when it speaks, ``explains`` why it last braked, as diagnostics have it."""

    def __init__(self, node: Node, says: Callable[[str], None], explains: Callable[[str], None]) -> None:
        self._log, self._says, self._explains = node.get_logger(), says, explains
        _, _, resume, reset = names.GUARD_SERVICES
        self._resume, self._reset = (node.create_client(Trigger, name) for name in (resume, reset))
        node.create_subscription(String, names.GUARD_STATE, self._spoke, LATCHED)
        node.create_subscription(DiagnosticArray, names.DIAGNOSTICS, self._told, COMMANDS)

    def resume(self) -> bool:
        """Asks a stopped guard to resume, without waiting; whether it could be asked. Its answer is logged."""
        return self._asked(self._resume)

    def reset(self) -> bool:
        """Likewise to clear a fault."""
        return self._asked(self._reset)

    def _asked(self, client: Client) -> bool:
        if not client.service_is_ready():
            self._log.warning(f"{client.srv_name} is not there")
            return False
        client.call_async(Trigger.Request()).add_done_callback(
            lambda future: self._log.info(f"{client.srv_name}: {future.result().message}")
        )
        return True

    def _spoke(self, message: String) -> None:
        self._says(message.data)

    def _told(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "guard":
                values = {value.key: value.value for value in status.values}
                self._explains(values.get("detail", "") if values.get("reason") else "")
