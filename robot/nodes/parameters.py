"""Parameters as data: what each is, its range, and whether it may change while the node runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from dfplanner.types import DFPlannerError

Value = bool | int | float | str | tuple[float, ...]


@dataclass(frozen=True)
class Param:
    """A parameter. ``low`` and ``high``: its range, for numbers; ``live``: it may change while the node runs.

    ``check`` raises DFPlannerError on a value that cannot be.
    """

    name: str
    default: Value
    about: str
    low: float = -math.inf
    high: float = math.inf
    live: bool = False
    check: Callable[[Any], object] | None = None

    def descriptor(self) -> ParameterDescriptor:
        """What ROS is told of it."""
        made = ParameterDescriptor(name=self.name, description=self.about, read_only=not self.live)
        if math.isfinite(self.low) and math.isfinite(self.high):
            if isinstance(self.default, float):
                made.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
            elif isinstance(self.default, int):
                made.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high))]
        return made

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        kinds = {bool: "true or false", int: "a whole number", float: "a number such as 1.0", str: "a text"}
        kind = kinds.get(type(self.default), "a list of numbers such as 1.0")
        bound = math.isfinite(self.low) and math.isfinite(self.high)
        return kind + (f" from {self.low:g} to {self.high:g}" if bound else "")

    def checked(self, value: Any) -> Any:
        """The value; raises DFPlannerError on NaN, infinities, what is out of range, and what ``check`` refuses."""
        numbers = [value] if isinstance(value, (int, float)) else value if not isinstance(value, str) else []
        if not all(math.isfinite(x) and self.low <= x <= self.high for x in numbers):
            raise DFPlannerError(f"{self.name} is {value}; expected {self.wanted}")
        if self.check is not None:
            self.check(value)
        return value


class Parameters:
    """A node's parameters by name: ``params["name"]``. ``changed`` is called after live ones were set.

    ``check`` raises DFPlannerError on values (by name) that do not go together. What is refused, is with the reason.
    Raises DFPlannerError where the node is started with such values.
    """

    def __init__(
        self,
        node: Node,
        params: Sequence[Param],
        changed: Callable[[], None] | None = None,
        check: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self._params, self._changed, self._check = {p.name: p for p in params}, changed, check
        self.values: dict[str, Any] = {p.name: self._declared(node, p) for p in params}
        if check is not None:
            check(self.values)
        node.add_on_set_parameters_callback(self._asked)
        node.add_post_set_parameters_callback(self._set)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @staticmethod
    def _declared(node: Node, param: Param) -> Any:
        default = list(param.default) if isinstance(param.default, tuple) else param.default
        # An empty list has no type in ROS, so that one is declared by its type, and is not set.
        try:
            made = node.declare_parameter(
                param.name, Parameter.Type.DOUBLE_ARRAY if default == [] else default, param.descriptor()
            )
        except (InvalidParameterValueException, InvalidParameterTypeException) as e:
            raise DFPlannerError(f"the value given for {param.name} cannot be used; expected {param.wanted}") from e
        return param.checked(param.default if made.value is None else made.value)

    def _asked(self, wanted: list[Parameter]) -> SetParametersResult:
        ours = {p.name: p.value for p in wanted if p.name in self._params}
        try:
            for name, value in ours.items():
                self._params[name].checked(value)
            if self._check is not None:
                self._check({**self.values, **ours})
        except DFPlannerError as e:
            return SetParametersResult(successful=False, reason=str(e))
        return SetParametersResult(successful=True)

    def _set(self, wanted: list[Parameter]) -> None:
        ours = {p.name: p.value for p in wanted if p.name in self._params}
        self.values.update(ours)
        if ours and self._changed is not None:
            self._changed()
