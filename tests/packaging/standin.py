"""A stand-in for ROS's ``launch`` and ``launch_ros``, which no wheel brings: it notes what a launch file describes.

For tests alone, and only as much as our launch files use; where the real ones are, the tests run these too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

Context = dict[str, str]


@dataclass
class Argument:
    """``DeclareLaunchArgument``."""

    name: str
    default_value: str
    description: str
    choices: Sequence[str] | None = None

    def enter(self, context: Context) -> Iterator[Any]:
        """Takes its default, unless it was given."""
        value = context.setdefault(self.name, self.default_value)
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(f"{self.name} is {value!r}; expected one of {self.choices}")
        yield self


@dataclass
class Configuration:
    """``LaunchConfiguration``."""

    name: str

    def perform(self, context: Context) -> str:
        """Its value."""
        return context[self.name]


@dataclass
class Opaque:
    """``OpaqueFunction``."""

    function: Any

    def enter(self, context: Context) -> Iterator[Any]:
        """What it returns."""
        return described(self.function(context), context)


class Node:
    """``launch_ros.actions.Node``; ``options`` are what it was made with."""

    def __init__(self, *, package: str, executable: str, **options: Any) -> None:
        self.package, self.executable, self.options = package, executable, options

    def enter(self, context: Context) -> Iterator[Any]:
        """Itself."""
        yield self

    @property
    def parameters(self) -> dict[str, Any]:
        """Those that are given by name."""
        named = [given for given in self.options["parameters"] if isinstance(given, dict)]
        return {name: value for given in named for name, value in given.items()}

    @property
    def remappings(self) -> dict[str, str]:
        """From the node's names to the graph's."""
        return dict(self.options.get("remappings", ()))

    def command(self, prefix: Path) -> list[str]:
        """What launch would run, the package being installed in ``prefix``."""
        words = [str(prefix / "lib" / self.package / self.executable), "--ros-args"]
        for given in self.options["parameters"]:
            if isinstance(given, dict):
                words += [w for name, value in given.items() for w in ("-p", f"{name}:={yaml_of(value)}")]
            else:
                words += ["--params-file", str(given)]
        return words + [w for pair in self.remappings.items() for w in ("-r", ":=".join(pair))]


def yaml_of(value: Any) -> str:
    """A parameter's value on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass
class Source:
    """``PythonLaunchDescriptionSource``."""

    path: str


@dataclass
class Include:
    """``IncludeLaunchDescription``."""

    source: Source

    def enter(self, context: Context) -> Iterator[Any]:
        """What the other file describes."""
        return described(_entities(Path(self.source.path)), context)


def described(entities: Iterable[Any], context: Context) -> Iterator[Any]:
    """Arguments and nodes, in order."""
    for entity in entities:
        yield from entity.enter(context)


def _entities(path: Path) -> Sequence[Any]:
    names: dict[str, Any] = {"__file__": str(path), "__name__": path.stem}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names["generate_launch_description"]()


def read(path: Path, given: Mapping[str, str]) -> tuple[list[Argument], list[Node]]:
    """What a launch file declares and starts, with arguments ``given``."""
    with _modules():
        found = list(described(_entities(path), dict(given)))
    return [x for x in found if isinstance(x, Argument)], [x for x in found if isinstance(x, Node)]


@contextmanager
def _modules() -> Iterator[None]:
    """While this lasts, this is what ``import launch`` finds."""
    names: dict[str, dict[str, Any]] = {
        "launch": {"LaunchDescription": list, "LaunchContext": dict},
        "launch.actions": {
            "DeclareLaunchArgument": Argument,
            "IncludeLaunchDescription": Include,
            "OpaqueFunction": Opaque,
            "Shutdown": dict,
        },
        "launch.substitutions": {"LaunchConfiguration": Configuration},
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": Source},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
    }
    made = {}
    for name, held in names.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(held)
    with mock.patch.dict(sys.modules, made):
        yield
