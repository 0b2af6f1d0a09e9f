"""A benchmark from end to end: every policy in every environment, tables as they are done, JSON, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dfplanner.bench.published import published_runs
from dfplanner.bench.report import Run, legend, make_run, text_table, write_json
from dfplanner.bench.rollout import (
    Latency,
    RolloutPolicy,
    RolloutResult,
    checked_noise,
    episode_seeds,
    measure_latency,
    run_episodes,
)
from dfplanner.bench.rows import ROWS, default_rows, make_policy, note_of
from dfplanner.bench.tasks import drawn_plan, task_of

TIMED_PLANS = 50


def run_bench(
    envs: Sequence[str],
    policies: Sequence[str] = (),
    actions: str = "diffused",
    episodes: int = 100,
    seed: int = 0,
    json_path: Path | None = None,
    plot_path: Path | None = None,
    device: str = "cpu",
    *,
    checkpoint: str | None = None,
    animation_path: Path | None = None,
    action_noise: float = 0.0,
    timed_plans: int = TIMED_PLANS,
    progress: bool = True,
    say: Callable[[str], Any] = print,
) -> list[Run]:
    """Runs ``policies`` in ``envs``, and says a table for each environment, with what others published beside it.

    No policies: the rows that can be had, slow ones for fewer episodes. Episode i is the same for all. ``checkpoint``
    (a name or file) is what planners take instead of the bundled ones. ``action_noise``: standard deviation of noise
    on every action. A policy is timed on one environment and one thread until it has made ``timed_plans`` plans (0:
    not timed). With ``json_path`` and ``plot_path`` the runs and a picture of rollouts are written; with
    ``animation_path`` a plan being denoised, as .gif and as .mp4, if any policy plans so. Raises DFPlannerError before
    the work if an environment, a policy or a number cannot be.
    """
    seeds = episode_seeds(seed, episodes)
    setting = _Setting(actions, seed, timed_plans, checked_noise(action_noise))
    jobs = {env: list(dict.fromkeys(policies)) or default_rows(env, checkpoint) for env in envs}
    counts = {
        row: episodes if policies else min(episodes, ROWS[row].episodes) for rows in jobs.values() for row in rows
    }

    def maker(env: str, row: str) -> Callable[[], RolloutPolicy]:
        return lambda: make_policy(row, env, actions=actions, device=device, seed=seed, checkpoint=checkpoint)

    makers = {(env, row): maker(env, row) for env, rows in jobs.items() for row in rows}
    for env in jobs:
        task_of(env).lanes(1)  # what cannot be had is told now
    for make in makers.values():
        make()
    runs: list[Run] = []
    results: list[tuple[Run, RolloutResult]] = []
    total = sum(task_of(env).horizon + timed_plans for env, _ in makers)
    with tqdm(total=total, unit="step", desc="bench", disable=not progress, smoothing=0.05) as bar:
        for env, rows in jobs.items():
            for row in rows:
                bar.set_description(f"{env} {row}")
                results.append(_run(makers[env, row], env, row, seeds[: counts[row]], setting, bar))
                runs.append(results[-1][0])
            runs += published_runs(env, action_noise)
            last = env == list(jobs)[-1]
            table = text_table([run for run in runs if run["env"] == env], explained=False)
            with tqdm.external_write_mode():
                say(f"{table}\n{legend(runs)}\n" if last else f"{table}\n")
            if json_path:
                write_json(json_path, runs)
    if plot_path:
        from dfplanner.bench.plots import panels_of, plot_rollouts

        plot_rollouts(plot_path, panels_of(results))
    if animation_path:
        _animate(makers, results, animation_path, seed)
    return runs


class _Setting(NamedTuple):
    """What is the same for every run."""

    actions: str
    seed: int
    timed_plans: int
    action_noise: float


def _run(
    make: Callable[[], RolloutPolicy], env: str, row: str, seeds: Sequence[int], setting: _Setting, bar: Any
) -> tuple[Run, RolloutResult]:
    """One policy in one environment: its episodes, then its times."""
    before, policy, timed = bar.n, make(), setting.timed_plans
    result = run_episodes(policy, env, seeds, bar, action_noise=setting.action_noise)
    latency = measure_latency(make, env, timed, progress=bar) if timed else Latency.none()
    bar.update(before + result.horizon + timed - bar.n)  # episodes may end early, and some policies never plan
    plans = hasattr(policy, "planner")
    run = make_run(
        result,
        latency,
        policy=row,
        actions=setting.actions if plans else None,
        seed=setting.seed,
        nfe_per_plan=policy.nfe_per_plan,
        note=note_of(row, env) or None,
        training=_training(policy) if plans else None,
    )
    return run, result


def _training(policy: Any) -> dict[str, Any]:
    """Which weights these are: enough to make them again."""
    facts = policy.planner.checkpoint.facts
    return {k: facts[k] for k in ("config", "step", "score") if k in facts}


def _animate(
    makers: dict[tuple[str, str], Callable[[], RolloutPolicy]],
    results: Sequence[tuple[Run, RolloutResult]],
    path: Path,
    seed: int,
) -> None:
    """A plan being denoised, near future first, in the last maze: the episode whose start is farthest from its goal."""
    from dfplanner.viz import animate_plan

    for run, result in reversed(results):
        policy: Any = makers[run["env"], run["policy"]]()
        if not hasattr(policy, "planner") or run["env"] != results[-1][0]["env"]:
            continue
        far = int(np.argmax(np.linalg.norm(result.goal - result.start, axis=1)))
        generator = torch.Generator(policy.planner.device).manual_seed(seed)
        plan = policy.planner.plan(
            result.trajectories[far : far + 1, 0],
            policy.make_objective(result.goal[far : far + 1]),
            generator=generator,
            settings=replace(policy.planner.settings, scheme="pyramid", scale=0.5, steps=10, horizon=None),
            trace=True,
        )
        task = task_of(run["env"])
        for suffix in (".gif", ".mp4"):
            animate_plan(
                path.with_suffix(suffix),
                drawn_plan(task, plan),
                task.rows,
                task.drawn(result.goal[far]),
                title=f"{run['env']}, {run['policy']}",
                goal_radius=task.goal_radius,
            )
        return
