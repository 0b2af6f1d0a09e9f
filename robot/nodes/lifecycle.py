"""A lifecycle node that survives what it is asked, and says what went wrong in a transition."""

from __future__ import annotations

import functools
import signal
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from dfplanner.types import DFPlannerError

N = TypeVar("N", bound=LifecycleNode)
Transition = Callable[[N, LifecycleState], Any]


class SteadyLifecycleNode(LifecycleNode):
    """A ``LifecycleNode`` that answers a transition it cannot make with ``success=False``, where rclpy 7.1 ends."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        service = self._service_change_state
        change = service.callback

        def careful(request: Any, response: Any) -> Any:
            try:
                return change(request, response)
            except rclpy_implementation.RCLError:
                wanted = request.transition.label or f"number {request.transition.id}"
                self.get_logger().warning(f"no transition {wanted} leads out of {self.life}; nothing was done")
                response.success = False
                return response

        service.callback = careful

    @property
    def life(self) -> str:
        """The lifecycle's state: unconfigured, inactive, active, finalized, or one in between."""
        return self._state_machine.current_state[1]


def told(transition: Transition[N]) -> Transition[N]:
    """A transition's callback that fails, with the sentence logged, on a DFPlannerError; other errors are logged."""

    @functools.wraps(transition)
    def careful(self: N, state: LifecycleState) -> Any:
        try:
            transition(self, state)
        except DFPlannerError as e:
            self.get_logger().error(str(e))
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    return careful


def also_at_signals(act: Callable[[], object]) -> None:
    """At SIGINT and SIGTERM calls ``act`` before the handler that is there."""

    def handler_with(before: Any) -> Callable[[int, Any], None]:
        def handle(number: int, frame: Any) -> None:
            act()
            before(number, frame)

        return handle

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler_with(signal.getsignal(number)))
