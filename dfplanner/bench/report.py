"""What a benchmark says: a run as JSON, and runs as a table in plain text or Markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import dfplanner
from dfplanner.bench.rollout import Latency, RolloutResult
from dfplanner.bench.stats import mean_interval, wilson
from dfplanner.checkpoint import atomic_write
from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import maze_of, normalized_score

Run = dict[str, Any]
"""One policy on one environment, JSON-ready, as ``make_run`` builds it."""


def make_run(
    result: RolloutResult,
    latency: Latency | None,
    *,
    policy: str,
    actions: str | None,
    seed: int,
    nfe_per_plan: float,
    **extra: Any,
) -> Run:
    """The run's JSON object; ``extra`` (``note``, ``checkpoint``, ``training``...) is added as it is, None
    left out.

    ``success_rate`` is a fraction; scores are D4RL's, per cent; ``steps_to_goal`` is over the episodes that
    arrived. Every estimate is {"mean", "lo", "hi", "n"} with a 95 % interval, null where there is nothing to
    tell.
    """
    maze, _ = maze_of(result.env_id)
    floor, ceiling = float(normalized_score(maze, 0)), float(normalized_score(maze, result.horizon))
    steps = result.first_arrival[result.success]
    n = len(result.seeds)
    return {
        "env": result.env_id,
        "policy": policy,
        "actions": actions,
        "episodes": n,
        "seed": seed,
        "success_rate": wilson(int(result.success.sum()), n).to_dict(),
        "raw_return": mean_interval(result.returns, 0, result.horizon).to_dict(),
        "normalized_score": mean_interval(result.normalized, floor, ceiling).to_dict(),
        "latched_score": mean_interval(result.latched_score, floor, ceiling).to_dict(),
        "steps_to_goal": mean_interval(steps, 1, result.horizon).to_dict(),
        **(latency or Latency.none()).to_dict(),
        "nfe_per_plan": float(nfe_per_plan),
        **{k: v for k, v in extra.items() if v is not None},
        "detail": [
            {
                "seed": result.seeds[i],
                "start": [round(float(v), 6) for v in result.start[i]],
                "goal": [round(float(v), 6) for v in result.goal[i]],
                "return": float(result.returns[i]),
                "first_arrival": int(result.first_arrival[i]),
            }
            for i in range(n)
        ],
    }


def versions() -> dict[str, Any]:
    """What the numbers were made with: versions of Python, dfplanner and the libraries, the system, its
    cores.
    """
    found: dict[str, Any] = {"python": platform.python_version(), "dfplanner": dfplanner.__version__}
    for name in ("torch", "numpy", "mujoco", "gymnasium"):
        found[name] = metadata.version(name)
    return {**found, "platform": platform.platform(), "machine": platform.machine(), "cpus": os.cpu_count()}


def write_json(path: str | Path, runs: Sequence[Run]) -> None:
    """Write {"versions", "runs"} to ``path``, whole or not at all; folders are made."""
    head = json.dumps({"versions": versions()}, indent=1)[:-2]
    text = head + ',\n "runs": [\n' + ",\n".join(map(_run_text, runs)) + "\n ]\n}\n"

    def write(part: str) -> None:
        Path(part).write_text(text, encoding="utf-8")

    atomic_write(path, write)


def _run_text(run: Run) -> str:
    """A run as JSON that a person can read: a line for every field, and for every episode."""
    fields = [f"   {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in run.items() if k != "detail"]
    detail = ",\n".join(f"    {json.dumps(d, allow_nan=False)}" for d in run.get("detail", []))
    return "  {\n" + ",\n".join([*fields, f'   "detail": [\n{detail}\n   ]']) + "\n  }"


def read_json(path: str | Path) -> list[Run]:
    """The runs in a file that ``write_json`` wrote; raises DFPlannerError if it cannot be read as one."""
    try:
        runs = json.loads(Path(path).read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DFPlannerError(f"{path} cannot be read as a benchmark's JSON ({e}); give what bench --json wrote") from e
    return list(runs)


COLUMNS = ("policy", "success %", "return", "normalised", "latched", "steps to goal", "n", "plan ms")


def _interval(estimate: dict[str, Any], digits: int = 1, scale: float = 1.0) -> str:
    """An estimate as ``151.2 [148.1, 154.3]``, with a dash for what there is not."""
    if estimate["mean"] is None:
        return "–"
    mean = f"{scale * estimate['mean']:.{digits}f}"
    if estimate["lo"] is None:
        return mean
    return f"{mean} [{scale * estimate['lo']:.{digits}f}, {scale * estimate['hi']:.{digits}f}]"


def label(run: Run) -> str:
    """The run's policy, with its actions where they are not its own: ``df``, ``df (pd)``."""
    actions = run["actions"]
    return run["policy"] + (f" ({actions})" if actions not in (None, "", "diffused") else "")


def _cells(run: Run) -> list[str]:
    """A run as a row of the table."""
    plan, steps = run["plan_ms"], run["steps_to_goal"]
    # A mean over the episodes that arrived: it says how many, if not all did.
    arrived = f" ({steps['n']})" if steps.get("n") not in (None, 0, run["episodes"]) else ""
    return [
        label(run),
        _interval(run["success_rate"], scale=100.0),
        _interval(run["raw_return"], 0),
        _interval(run["normalized_score"]),
        _interval(run["latched_score"]),
        _interval(steps, 0) + arrived,
        str(run["episodes"]),
        "–" if plan["p50"] is None else f"{plan['p50']:.1f}/{plan['p99']:.1f}",
    ]


def _by_env(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs under their environments, both in the order they came in."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run["env"], []).append(run)
    return groups


def _notes(runs: Sequence[Run]) -> list[str]:
    """``policy: its note``, one for each row that has one."""
    return [f"{label(run)}: {run['note']}" for run in runs if run.get("note")]


LEGEND = """\
Mean [95 % interval] over n episodes. Return: steps spent at the goal. Normalised: D4RL's score of it.
Latched: the score, had the ball stayed from its first arrival on. Steps to goal: of those that arrived
(their number, if not all). Plan ms: p50/p99 of the calls that plan, one environment, one thread."""


def text_table(runs: Sequence[Run]) -> str:
    """A plain-text table for each environment, every policy a row, its notes below."""
    blocks = []
    for env, group in _by_env(runs).items():
        rows = [list(COLUMNS), *map(_cells, group)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        head, *lines = ["  ".join(map(_pad, range(len(row)), row, widths)) for row in rows]
        rule = "─" * len(head)
        blocks.append("\n".join([env, rule, head, rule, *lines, rule, *_notes(group)]))
    return "\n\n".join([*blocks, LEGEND]) + "\n" if blocks else "no runs\n"


def _pad(column: int, cell: str, width: int) -> str:
    """The last two columns, single numbers, are set right, the others left."""
    return cell.rjust(width) if column >= len(COLUMNS) - 2 else cell.ljust(width)


def markdown_table(runs: Sequence[Run], heading: str = "### ") -> str:
    """The same as GitHub Markdown: a heading, a table and a list of notes for each environment."""
    blocks = []
    for env, group in _by_env(runs).items():
        rows = [list(COLUMNS), ["---"] * 6 + ["--:"] * 2, *map(_cells, group)]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
        notes = "\n".join(f"- {note}" for note in _notes(group))
        blocks.append("\n\n".join(part for part in (f"{heading}{env}", table, notes) if part))
    return "\n\n".join([*blocks, LEGEND]) + "\n" if blocks else "no runs\n"
