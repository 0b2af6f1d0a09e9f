"""The delay study as a picture: what each method keeps of its score, and how far actions jump where plans meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from dfplanner.bench.delay import METHODS, DelayRun
from dfplanner.types import DFPlannerError
from dfplanner.viz import GREY, INK, axes_at, checked_path, new_figure, save_figure, words

COLOURS = {"synchronous": "#7a8594", "naive": "#c4372c", "ensemble": "#e39a3b", "held": "#3f7fb5", "ours": "#163f78"}


def plot_delay(path: str | Path, runs: Sequence[DelayRun]) -> None:
    """A PNG: a row for each environment, score and the largest jumps by delay; raises DFPlannerError without runs."""
    path = checked_path(path, {".png": "a picture"})
    if not runs:
        raise DFPlannerError("there is nothing to draw: no runs came")
    envs = list(dict.fromkeys(r.env for r in runs))
    width, height, gap, left, foot = 4.3, 2.4, 0.85, 0.75, 0.85
    fig = new_figure(left + 2 * width + gap + 0.3, foot + len(envs) * (height + 0.95))
    for i, env in enumerate(envs):
        bottom = foot + (len(envs) - 1 - i) * (height + 0.95)
        own = [r for r in runs if r.env == env]
        words(fig, left, bottom + height + 0.3, env, fontsize=12, fontweight="bold")
        score = axes_at(fig, (left, bottom, width, height))
        jumps = axes_at(fig, (left + width + gap, bottom, width, height))
        _score(score, own)
        _jumps(jumps, own)
        for ax in (score, jumps):
            _dress(ax, own, "delay, environment steps" if i == len(envs) - 1 else "")
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="lower left", ncol=len(labels), frameon=False, fontsize=8.5, bbox_to_anchor=(0.06, 0)
    )
    save_figure(fig, path)


def _methods(runs: Sequence[DelayRun]) -> list[str]:
    return [m for m in METHODS if any(r.method == m for r in runs)]


def _score(ax: Axes, runs: Sequence[DelayRun]) -> None:
    for method in _methods(runs):
        own = [r for r in runs if r.method == method]
        x, y = [r.delay for r in own], [r.score["mean"] for r in own]
        ax.plot(x, y, color=COLOURS[method], lw=1.6, marker="o", ms=3.5, label=method)
        if own[0].score["lo"] is not None:
            ax.fill_between(
                x, [r.score["lo"] for r in own], [r.score["hi"] for r in own], color=COLOURS[method], alpha=0.1, lw=0
            )
    ax.set_title("score, mean and its 95 % interval", fontsize=9, color=INK, loc="left")


def _jumps(ax: Axes, runs: Sequence[DelayRun]) -> None:
    """Solid: 99 % of the joins are smaller; dotted: 99 % of the changes inside chunks are."""
    for method in _methods(runs):
        for where, style in (("join", "-"), ("inside", ":")):
            own = [(r.delay, getattr(r, where)["p99"]) for r in runs if r.method == method and getattr(r, where)]
            if own:
                ax.plot(*zip(*own, strict=True), color=COLOURS[method], lw=1.4, ls=style, marker="o", ms=2.5)
    ax.set_ylim(bottom=0)
    ax.set_title("99th percentile of action jumps: joins —, inside chunks ····", fontsize=9, color=INK, loc="left")


def _dress(ax: Axes, runs: Sequence[DelayRun], label: str) -> None:
    delays = sorted({r.delay for r in runs})
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xticks(delays, [str(d) for d in delays])
    ax.minorticks_off()
    half = runs[0].chunk // 2
    if delays[0] < half < delays[-1]:
        ax.axvline(half, color=GREY, lw=0.8, ls=(0, (2, 3)), zorder=0)
        ax.annotate("half a chunk", (half, 1), xycoords=("data", "axes fraction"), fontsize=7, color=GREY, rotation=90,
                    ha="right", va="top", xytext=(-2, -3), textcoords="offset points")  # fmt: skip
    ax.set_xlabel(label, fontsize=9, color=GREY)
    ax.tick_params(labelsize=8, colors=GREY)
    ax.grid(axis="y", color=GREY, alpha=0.15)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
