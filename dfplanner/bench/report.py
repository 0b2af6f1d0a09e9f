"""What a benchmark says: a run as JSON, and runs as a table in plain text or Markdown."""

from __future__ import annotations

import json
import os
import platform
import textwrap
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import dfplanner
from dfplanner.bench.rollout import Latency, RolloutResult
from dfplanner.bench.stats import mean_interval, wilson
from dfplanner.bench.tasks import task_of
from dfplanner.checkpoint import atomic_write
from dfplanner.types import DFPlannerError

Run = dict[str, Any]
"""One policy on one environment, JSON-ready, as ``make_run`` builds it; ``published``: others' numbers."""


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

    ``success_rate`` is a fraction; ``steps_to_goal`` is over the episodes that arrived; which scores there are depends
    on the task (D4RL's are per cent). Every estimate is {"mean", "lo", "hi", "n"} with a 95 % interval, null where
    there is nothing to tell.
    """
    steps = result.first_arrival[result.success]
    n = len(result.seeds)
    return {
        "env": result.env_id,
        "policy": policy,
        "actions": actions,
        "episodes": n,
        "seed": seed,
        "success_rate": wilson(int(result.success.sum()), n).to_dict(),
        **task_of(result.env_id).estimates(result),
        "steps_to_goal": mean_interval(steps, 1, result.horizon).to_dict(),
        **(latency or Latency.none()).to_dict(),
        "nfe_per_plan": float(nfe_per_plan),
        **({"action_noise": result.action_noise} if result.action_noise else {}),
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
    if "detail" in run:
        detail = ",\n".join(f"    {json.dumps(d, allow_nan=False)}" for d in run["detail"])
        fields.append(f'   "detail": [\n{detail}\n   ]')
    return "  {\n" + ",\n".join(fields) + "\n  }"


def read_json(path: str | Path) -> list[Run]:
    """The runs in a file that ``write_json`` wrote; raises DFPlannerError if it cannot be read as one."""
    try:
        runs = json.loads(Path(path).read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DFPlannerError(f"{path} cannot be read as a benchmark's JSON ({e}); give what bench --json wrote") from e
    return list(runs)


def _interval(estimate: dict[str, Any], digits: int = 1, scale: float = 1.0) -> str:
    """An estimate as ``151.2 [148.1, 154.3]``, with a dash for what there is not."""
    if estimate["mean"] is None:
        return "–"
    mean = f"{scale * estimate['mean']:.{digits}f}"
    if estimate["lo"] is None:
        return mean
    return f"{mean} [{scale * estimate['lo']:.{digits}f}, {scale * estimate['hi']:.{digits}f}]"


def label(run: Run) -> str:
    """The run's policy, with its actions where they are not its own: ``df``, ``df (pd)``; or ``(published)``."""
    actions = "published" if "published" in run else run["actions"]
    return run["policy"] + (f" ({actions})" if actions not in (None, "", "diffused") else "")


def _steps(run: Run) -> str:
    """A mean over the episodes that arrived: it says how many, if not all did."""
    steps = run["steps_to_goal"]
    return _interval(steps, 0) + (f" ({steps['n']})" if steps.get("n") not in (None, 0, run["episodes"]) else "")


def _plan_ms(run: Run) -> str:
    plan = run["plan_ms"]
    return "–" if plan["p50"] is None else f"{plan['p50']:.1f}/{plan['p99']:.1f}"


def _by_task(run: Run) -> str:
    return " ".join("–" if t["mean"] is None else f"{100 * t['mean']:.0f}" for t in run["tasks"].values())


class Column(NamedTuple):
    """A column of the table: it is there if any run has the key; ``legend`` says what it is."""

    key: str
    title: str
    cell: Callable[[Run], str]
    legend: str = ""
    right: bool = False


COLUMNS = (
    Column("policy", "policy", label),
    Column("success_rate", "success %", lambda run: _interval(run["success_rate"], scale=100.0)),
    Column("tasks", "by task", _by_task, "By task: success %, the tasks in order."),
    Column("raw_return", "return", lambda run: _interval(run["raw_return"], 0), "Return: steps spent at the goal."),
    Column(
        "normalized_score",
        "normalised",
        lambda run: _interval(run["normalized_score"]),
        "Normalised: D4RL's score of it.",
    ),
    Column(
        "latched_score",
        "latched",
        lambda run: _interval(run["latched_score"]),
        "Latched: the score, had the ball stayed from its first arrival on.",
    ),
    Column(
        "steps_to_goal", "steps to goal", _steps, "Steps to goal: of those that arrived (their number, if not all)."
    ),
    *(
        Column(key, key, lambda run, key=key: str(run[key]), f"{key.capitalize()}: episodes {what}.", right=True)
        for key, what in (
            ("collisions", "that touched something"),
            ("violations", "in which a joint was measured beyond a limit"),
            ("clamped", "in which a command asked for more than the limits allow"),
        )
    ),
    Column("episodes", "n", lambda run: str(run["episodes"]), right=True),
    Column(
        "plan_ms",
        "plan ms",
        _plan_ms,
        "Plan ms: p50/p99 of the calls that plan, one environment, one thread.",
        right=True,
    ),
)


def _columns(runs: Iterable[Run]) -> list[Column]:
    """The columns that any of the runs fills."""
    keys = {key for run in runs for key in run}
    return [column for column in COLUMNS if column.key in keys]


def _cells(run: Run, columns: Sequence[Column]) -> list[str]:
    """A run as a row of the table."""
    return [column.cell(run) if column.key in run else "–" for column in columns]


def legend(runs: Sequence[Run]) -> str:
    """What the columns of these runs' tables say."""
    published = "Published: as others printed it, not run here." if any("published" in run for run in runs) else ""
    words = ["Mean [95 % interval] over n episodes.", *(c.legend for c in _columns(runs)), published]
    return textwrap.fill(" ".join(filter(None, words)), 104)


def title(run: Run) -> str:
    """The environment, and what disturbs it."""
    noise, disturbance = run.get("action_noise"), run.get("disturbance")
    return run["env"] + (f", action noise {noise:g}" if noise else "") + (f", {disturbance}" if disturbance else "")


def _by_env(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs under their tables' titles, both in the order they came in."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(title(run), []).append(run)
    return groups


def _notes(runs: Sequence[Run]) -> list[str]:
    """``policy: its note``, or a published row's source, one for each row that has one."""
    notes = [(label(run), run.get("note") or run.get("published")) for run in runs]
    return [f"{name}: {note}" for name, note in notes if note]


def text_table(runs: Sequence[Run], explained: bool = True) -> str:
    """A plain-text table for each environment, every policy a row, its notes below; ``explained``: the legend too."""
    blocks = []
    for name, group in _by_env(runs).items():
        columns = _columns(group)
        rows = [[c.title for c in columns], *(_cells(run, columns) for run in group)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        head, *lines = [
            "  ".join(
                cell.rjust(w) if c.right else cell.ljust(w) for c, cell, w in zip(columns, row, widths, strict=True)
            )
            for row in rows
        ]
        rule = "─" * len(head)
        blocks.append("\n".join([name, rule, head, rule, *lines, rule, *_notes(group)]))
    return "\n\n".join([*blocks, *([legend(runs)] if explained else [])]) + "\n" if blocks else "no runs\n"


def markdown_table(runs: Sequence[Run], heading: str = "### ") -> str:
    """The same as GitHub Markdown: a heading, a table and a list of notes for each environment."""
    blocks = []
    for name, group in _by_env(runs).items():
        columns = _columns(group)
        rules = ["--:" if c.right else "---" for c in columns]
        rows = [[c.title for c in columns], rules, *(_cells(run, columns) for run in group)]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
        notes = "\n".join(f"- {note}" for note in _notes(group))
        blocks.append("\n\n".join(part for part in (f"{heading}{name}", table, notes) if part))
    return "\n\n".join([*blocks, legend(runs)]) + "\n" if blocks else "no runs\n"
