"""How a node answers what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Generator

from std_srvs.srv import Trigger

from dfplanner.types import DFPlannerError


def answering(
    act: Callable[[], str], log: Callable[[str], object], after: Callable[[], object]
) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    """A service's callback: it answers with what ``act`` says, or on a DFPlannerError with that, and logs it.

    ``after`` is called at last.
    """

    def handle(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = act(), True
        except DFPlannerError as e:
            response.message, response.success = str(e), False
        log(response.message)
        after()
        return response

    return handle


class Turn:
    """Awaited in a callback, it lets everything else have a turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield
