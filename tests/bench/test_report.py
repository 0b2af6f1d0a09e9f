"""The JSON is the contract's; tables hold every row, fit a screen, and read as Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfplanner.bench.baselines import DataController
from dfplanner.bench.published import OGBENCH, published_runs
from dfplanner.bench.report import Run, make_run, markdown_table, read_json, text_table, write_json
from dfplanner.bench.rollout import Latency, RolloutResult, episode_seeds, run_episodes
from dfplanner.types import DFPlannerError

RESULT = run_episodes(DataController("maze2d-umaze"), "maze2d-umaze", episode_seeds(0, 6))


def run(result: RolloutResult = RESULT, **changes: object) -> Run:
    facts: dict = {"policy": "df", "actions": "diffused", "seed": 0, "nfe_per_plan": 5, **changes}
    return make_run(result, Latency(np.array([1.0, 2.0]), np.array([0.5, 1.0, 2.0])), **facts)


def failed() -> RolloutResult:
    """The same episodes, had none arrived."""
    return replace(RESULT, returns=np.zeros(6), first_arrival=np.full(6, -1))


def test_the_json_has_the_contracts_keys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.json"
    runs = [run(note="imitates: goal token, first chunk only", checkpoint=None), run(failed(), policy="none")]
    write_json(path, runs)
    told = json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert set(told) == {"versions", "runs"} and {"python", "torch", "mujoco"} <= set(told["versions"])
    one = told["runs"][0]
    estimates = {"success_rate", "raw_return", "normalized_score", "latched_score", "steps_to_goal"}
    assert set(one) == estimates | {
        *(
            "env",
            "policy",
            "actions",
            "episodes",
            "seed",
            "plan_ms",
            "tick_ms",
            "nfe_per_plan",
            "detail",
            "note",
        )
    }
    assert all({"mean", "lo", "hi"} <= set(one[key]) for key in estimates)
    assert set(one["plan_ms"]) == set(one["tick_ms"]) == {"p50", "p99"}
    assert len(one["detail"]) == 6
    assert set(one["detail"][0]) == {"seed", "start", "goal", "return", "first_arrival"}
    assert told["runs"][1]["steps_to_goal"] == {"mean": None, "lo": None, "hi": None, "n": 0}
    assert read_json(path) == runs
    assert [p.name for p in path.parent.iterdir()] == ["bench.json"]


def test_means_are_those_of_the_detail() -> None:
    one = run()
    assert one["raw_return"]["mean"] == pytest.approx(np.mean([d["return"] for d in one["detail"]]))
    assert one["steps_to_goal"]["mean"] == pytest.approx(np.mean([d["first_arrival"] for d in one["detail"]]))
    assert one["normalized_score"]["mean"] == pytest.approx(RESULT.score.mean())
    assert one["success_rate"]["mean"] == 1.0 and one["env"] == "maze2d-umaze"


def test_steps_are_averaged_over_the_episodes_that_arrived() -> None:
    half = replace(RESULT, first_arrival=np.array([10, -1, 30, -1, -1, -1]))
    one = run(half)
    assert one["steps_to_goal"]["mean"] == 20 and one["steps_to_goal"]["n"] == 2
    assert "(2)" in text_table([one])


def test_without_an_interval_or_a_time_there_is_a_dash() -> None:
    lone = make_run(
        run_episodes(DataController("maze2d-umaze"), "maze2d-umaze", [0]),
        None,
        policy="p",
        actions=None,
        seed=0,
        nfe_per_plan=0,
    )
    assert lone["raw_return"]["lo"] is None and lone["plan_ms"] == {"p50": None, "p99": None}
    assert "None" not in text_table([lone]) and "nan" not in text_table([lone])


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_json(path, [run()])
    old = path.read_bytes()
    with pytest.raises(ValueError):
        write_json(path, [{**run(), "raw_return": float("nan")}])
    assert path.read_bytes() == old


@pytest.mark.parametrize("text", ["", "[]", "{", '{"versions": {}}'])
def test_a_file_that_is_no_benchmark_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DFPlannerError, match=r"x\.json cannot be read as a benchmark's JSON"):
        read_json(tmp_path / "x.json")


def test_tables_have_a_row_a_policy_and_a_block_an_environment() -> None:
    other = replace(RESULT, env_id="maze2d-large")
    runs = [run(note="imitates"), run(policy="full-sequence-noncausal", actions="pd"), run(other)]
    text, marks = text_table(runs), markdown_table(runs)
    assert max(map(len, text.splitlines())) <= 140
    for table in (text, marks):
        assert table.count("full-sequence-noncausal (pd)") == 1 and table.count("df: imitates") == 1
        assert table.index("maze2d-umaze") < table.index("maze2d-large")
    rows = [line for line in marks.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * 2 + 3 and {line.count("|") for line in rows} == {9}
    assert text_table([]) == markdown_table([]) == "no runs\n"


def test_noise_on_the_actions_is_in_the_json_and_in_a_title_of_its_own() -> None:
    runs = [run(), run(replace(RESULT, action_noise=0.25))]
    assert [r.get("action_noise") for r in runs] == [None, 0.25]
    for table in (text_table(runs), markdown_table(runs)):
        assert "maze2d-umaze\n" in table and "maze2d-umaze, action noise 0.25\n" in table


def test_published_rates_stand_beside_ours_and_say_so(tmp_path: Path) -> None:
    ours = {**run(), "env": "pointmaze-large-navigate-v0"}
    runs = [ours, *published_runs("PointMaze-Large-v0")]
    assert len(runs) == 1 + len(OGBENCH)
    runs = [{**r, "env": ours["env"]} for r in runs]
    write_json(tmp_path / "b.json", runs)
    assert read_json(tmp_path / "b.json") == runs
    rows = [line.split("|")[1:-1] for line in markdown_table(runs).splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {8}
    printed = {row[0].strip(): row[1].strip() for row in rows[3:]}
    assert printed == {f"{p.method} (published)": f"{p.large:.1f}" for p in OGBENCH}
    assert all(set(row[2:]) == {" – "} for row in rows[3:])
    assert "Published: as others printed it" in text_table(runs) and "Published" not in text_table([ours])
    assert published_runs("maze2d-large") == published_runs("pointmaze-large-v0", action_noise=0.1) == []
