"""Imports go one way: read from the source, so that imports inside functions count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"dfplanner": "dfplanner", "dfplanner_envs": "envs", "dfplanner_robot": "robot"}

ORDER: list[set[str]] = [
    {"dfplanner.types"},
    {"dfplanner.commitment", "dfplanner.noise"},
    {"dfplanner.schedules", "dfplanner.levels", "dfplanner.optim", "dfplanner.data"},
    {"dfplanner.dynamics"},
    {"dfplanner.matrices", "dfplanner.models"},
    {"dfplanner.guidance"},
    {"dfplanner.sampler", "dfplanner.settings"},
    {"dfplanner.checkpoint"},
    {"dfplanner.problem"},
    {"dfplanner.request"},
    {"dfplanner.warm"},
    {"dfplanner.planner", "dfplanner.runtime", "dfplanner.trainlog"},
    {"dfplanner.controller"},
    {"dfplanner.asynchronous"},
    {"dfplanner.testing", "dfplanner.viz", "dfplanner.export", "dfplanner.train", "dfplanner.doctor"},
    {"dfplanner.configs"},
    {"dfplanner.policy", "dfplanner.serve"},
    {"dfplanner_envs"},
    {"dfplanner_robot"},
    {"dfplanner.bench"},
    {"dfplanner.cli"},
    {"dfplanner.__main__"},
]
"""A unit (a module, or a folder with all that is in it) may import units of earlier rows, and itself."""

RANK = {unit: i for i, row in enumerate(ORDER) for unit in row}


def unit_of(module: str) -> str:
    """The unit that a dotted name belongs to: ``dfplanner.models.gru`` is in ``dfplanner.models``."""
    return ".".join(module.split(".")[: 2 if module.split(".")[0] == "dfplanner" else 1])


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module below the root."""
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            yield ".".join([package, *(p for p in parts if p != "__init__")]), path


def imported(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """The units of ours that a file imports, anywhere in it, with the line."""
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names] if origin == "dfplanner" else [origin]
        else:
            continue
        for name in names:
            if name.split(".")[0] in FOLDERS:
                yield unit_of(name), node.lineno


def violations(root: Path) -> list[str]:
    """What breaks the order, a sentence each."""
    found = []
    for module, path in sources(root):
        unit = unit_of(module)
        for target, line in imported(module, path):
            if module == "dfplanner":
                found.append(f"{path.name}:{line}: dfplanner itself must not import {target}")
            elif target != unit and target in RANK and RANK[target] >= RANK.get(unit, -1):
                found.append(f"{path.relative_to(root)}:{line}: {unit} must not import {target}")
    return found


def test_imports_go_one_way() -> None:
    assert violations(ROOT) == []


def test_every_module_has_its_place_in_the_order() -> None:
    units = {unit_of(module) for module, _ in sources(ROOT)} - {"dfplanner"}
    assert units - RANK.keys() == set(), "add the new module to ORDER above, where it belongs"


def test_the_check_sees_every_form_of_a_backward_import(tmp_path: Path) -> None:
    files = {
        "dfplanner/__init__.py": "from dfplanner import planner",
        "dfplanner/schedules.py": "import dfplanner.sampler",
        "dfplanner/models/gru.py": "from ..planner import Planner",
        "dfplanner/planner.py": "def f():\n    from dfplanner_envs.maze2d import Maze2D",
        "dfplanner/data/tokens.py": "from dfplanner import __version__, controller",
        "envs/maze2d.py": "import numpy\nif TYPE_CHECKING:\n    from dfplanner.bench import tasks",
        "robot/core.py": "from dfplanner.cli import main",
        # and what is allowed
        "dfplanner/cli.py": "from dfplanner.bench import run\nimport dfplanner_envs",
        "dfplanner/models/build.py": "from .gru import GRU\nfrom dfplanner import types, __version__",
        "dfplanner/bench/run.py": "import dfplanner_envs.maze2d, dfplanner_robot",
        "envs/vector.py": "from dfplanner_envs.maze2d import Maze2D\nfrom dfplanner.policy import DFPolicy",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    wrong = {line.split(":")[0] for line in violations(tmp_path)}
    assert wrong == {
        "__init__.py",
        "dfplanner/schedules.py",
        "dfplanner/models/gru.py",
        "dfplanner/planner.py",
        "dfplanner/data/tokens.py",
        "envs/maze2d.py",
        "robot/core.py",
    }
