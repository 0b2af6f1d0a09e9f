"""Environments of other packages from the command line: their data in both formats, training on it, their benchmark."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfplanner.bench import validate
from dfplanner.bench.run import run_bench
from dfplanner.checkpoint import Checkpoint
from dfplanner.cli import main
from dfplanner.cli.collect import default_out
from dfplanner.data import Episodes, load_episodes
from dfplanner_envs.collect import collect_for, in_model_frame
from dfplanner_envs.wrappers import make

POINT, OGBENCH = "PointMaze_UMaze-v3", "pointmaze-medium-navigate-v0"
TINY = {
    "name": "tiny", "env": POINT, "chunk": 10, "horizon": 4, "steps": 2, "act_code": 4, "batch": 8, "data_steps": 900,
    "model": {"width": 16, "layers": 1, "heads": 2, "ff": 16},
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in ("gymnasium_robotics", "ogbench", "minari"):
        pytest.importorskip(package, reason=f"{package} is not installed (an extra)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr(validate, "validator", partial(validate.validator, episodes=2))
    real = __import__("dfplanner.train", fromlist=["fit_inverse"])
    monkeypatch.setattr(real, "fit_inverse", partial(real.fit_inverse, steps=2))
    return tmp_path


def same(a: Episodes, b: Episodes, but_last: bool) -> None:
    """Equal up to a rounding of the frame, but for each episode's last step."""
    kept = np.setdiff1d(np.arange(b.steps), b.ends - 1) if but_last else np.arange(b.steps)
    for name in ("observations", "actions", "goals", "rewards"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name)[kept], atol=2e-6, err_msg=name)


@pytest.mark.parametrize("env_id", ["maze2d-umaze", "multi2d-umaze", POINT, OGBENCH])
def test_data_is_collected_in_both_formats_and_read_again(env_id: str, here: Path) -> None:
    stay = [] if env_id == OGBENCH else ["--stay"]
    order = ["collect", env_id, "--steps", "900", "--seed", "4", *stay]
    assert main([*order, "--out", "a.hdf5"]) == 0
    assert main([*order, "--format", "minari", "--out", "mine/set-v0"]) == 0
    made = collect_for(env_id, 900, 4, stay=bool(stay))
    for source in ("a.hdf5", "mine/set-v0"):
        same(in_model_frame(env_id, load_episodes(source)), made, but_last=source == "mine/set-v0")


@pytest.mark.parametrize("env_id", ["maze2d-umaze", "multi2d-umaze", POINT, OGBENCH])
def test_minari_takes_it_and_makes_the_environment_again(env_id: str, here: Path) -> None:
    import minari

    assert main(["collect", env_id, "--steps", "900", "--format", "minari", "--out", "mine/set-v0"]) == 0
    data = minari.load_dataset("mine/set-v0")
    env, ours = data.recover_environment(), make(env_id)
    assert env.action_space == ours.action_space == data.action_space
    obs, _ = env.reset(seed=0)
    assert obs in data.observation_space
    for episode in data.iterate_episodes():
        seen: Any = episode.observations
        rows = [{k: v[t] for k, v in seen.items()} if isinstance(seen, dict) else seen[t] for t in (0, 5, -1)]
        assert all(row in data.observation_space for row in rows)
        if env_id == POINT:  # its own frame: the ball is where its walls let it be, and pays where its goal is
            at_goal = np.linalg.norm(seen["achieved_goal"] - seen["desired_goal"], axis=1) <= 0.45
            assert at_goal.any() and np.abs(seen["observation"][:, :2]).max() < 1.5
            np.testing.assert_array_equal(seen["achieved_goal"], seen["observation"][:, :2])


@pytest.mark.parametrize(
    ("env_id", "name"),
    [("Multi2D-UMaze", "multi2d-umaze-stay"), (POINT, "pointmaze_umaze-stay"), ("arm-reach", "armreach-stay")],
)
def test_what_is_collected_has_a_name_by_default(env_id: str, name: str) -> None:
    assert default_out(env_id, "d4rl", True) == f"data/{name}.hdf5"
    assert default_out(env_id, "minari", True) == f"dfplanner/{name}-v0"


def test_what_was_done_in_point_mazes_own_frame_is_what_its_ball_then_does(here: Path) -> None:
    assert main(["collect", POINT, "--steps", "300", "--out", "a.hdf5"]) == 0
    data, env = load_episodes("a.hdf5"), make(POINT)
    env.reset(seed=0)
    physics: Any = env.unwrapped
    for row in (10, 57, 130, 220):
        physics.point_env.set_state(*np.split(data.observations[row].astype(float), 2))
        seen = env.step(data.actions[row])[0]["observation"]
        np.testing.assert_allclose(seen, data.observations[row + 1], atol=2e-3)
        assert np.abs(seen - data.observations[row]).max() > 5e-3


@pytest.mark.parametrize(("env_id", "source"), [(POINT, ""), (OGBENCH, ""), (POINT, "mine/set-v0")])
def test_training_collects_scores_and_takes_minari(
    env_id: str, source: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if source:
        assert main(["collect", env_id, "--steps", "900", "--format", "minari", "--out", source]) == 0
    (here / "tiny.json").write_text(json.dumps({**TINY, "env": env_id, "data": source, "stay": False}))
    assert main(["train", "tiny.json", "--out", "run"]) == 0
    assert "(score " in capsys.readouterr().out
    made = Checkpoint.load("run")
    assert made.facts["data"]["env"] == ("maze2d-umaze" if env_id == POINT else OGBENCH)
    assert made.spec.obs_dim == (4 if env_id == POINT else 2)
    plot = here / "b.png" if env_id == OGBENCH else None
    runs = run_bench(
        [env_id], ["df", "random"], episodes=2, seed=1, checkpoint="run", action_noise=0.2, timed_plans=0,
        plot_path=plot, say=lambda table: None, progress=False,
    )  # fmt: skip
    assert [(r["policy"], r.get("action_noise")) for r in runs][:2] == [("df", 0.2), ("random", 0.2)]
    assert [r["env"] for r in runs] == [env_id] * 2
    assert plot is None or plot.stat().st_size > 0


def test_data_of_another_maze_or_that_never_rests_is_a_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", OGBENCH, "--stay"]) == 2
    assert "never rests; leave out stay" in capsys.readouterr().err
    assert main(["collect", "PointMaze_Medium-v3", "--steps", "700", "--out", "a.hdf5"]) == 0
    (here / "tiny.json").write_text(json.dumps({**TINY, "data": "a.hdf5"}))
    capsys.readouterr()
    assert main(["train", "tiny.json"]) == 2
    assert "the data is PointMaze_Medium-v3's, but the model is for PointMaze_UMaze-v3" in capsys.readouterr().err


def test_where_the_environment_cannot_be_made_training_goes_on_unscored(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gymnasium_robotics", None)
    (here / "tiny.json").write_text(json.dumps({**TINY, "stay": False}))
    assert main(["train", "tiny.json", "--out", "run"]) == 0
    said = capsys.readouterr()
    assert "(not scored)" in said.out and "is not scored as it trains: PointMaze_UMaze-v3 needs gymnasium" in said.err
    assert main(["bench", POINT, "--policy", "random"]) == 2
    assert 'pip install "dfplanner[robotics]"' in capsys.readouterr().err
