"""The command line from end to end, through real processes where that matters."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from dfplanner.bench.run import run_bench
from dfplanner.checkpoint import bundled
from dfplanner.cli import COMMANDS, main
from dfplanner_envs.mazes import MAZES, normalized_score

PLAN = "plan --checkpoint ok.safetensors --start 0.8,0.8 --goal 2.8,0.8"


def run(*args: str, code: int = 0, cwd: Path) -> tuple[str, str]:
    """Stdout and stderr of a real process, which must end with that exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "dfplanner", *args], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_from_nothing_to_a_scored_pictured_rollout(here: Path) -> None:
    run("collect", "maze2d-umaze", "--steps", "5000", "--seed", "3", "--out", "data/u.hdf5", cwd=here)
    order = ("train", "tiny.json", "--data", "data/u.hdf5", "--out", "run")
    _interrupted(order, here)
    said, _ = run(*order, "--resume", cwd=here)
    assert "wrote run/tiny.safetensors (score " in said
    assert _listed(here)["steps"] == 400
    goal = ("--start", "0.8,0.8", "--goal", "2.8,", "0.8")
    said, _ = run("plan", "--checkpoint", "run", *goal, "--plot", "plan.gif", cwd=here)
    assert said.startswith("8 states over 0.70 s, ending at")
    _is_picture(here / "plan.gif")
    envs, rows = ("maze2d-umaze", "multi2d-umaze"), ("df", "random", "data-controller")
    outputs = ("--json", "out/b.json", "--plot", "out/b.png")
    numbers = ("--episodes", "3", "--seed", "2", "--checkpoint", "run")
    said, _ = run("bench", *envs, "--policy", *rows, *numbers, *outputs, cwd=here)
    for env in envs:
        assert said.count(f"{env}\n") == 1
    for name in ("b.png", "b.gif", "b.mp4"):
        assert f"wrote out/{name}" in said
        _is_picture(here / "out" / name)
    written = json.loads((here / "out/b.json").read_text())
    assert [(r["env"], r["policy"]) for r in written["runs"]] == [(env, row) for env in envs for row in rows]
    assert {"python", "dfplanner", "torch", "mujoco"} <= written["versions"].keys()
    for r in written["runs"]:
        _keeps_the_contract(r, episodes=3, seed=2)


def _interrupted(order: Sequence[str], folder: Path) -> None:
    """Ctrl-C in the middle: exit code 130 and how to go on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dfplanner", *order],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (folder / "run/metrics.jsonl").is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("dfplanner: stopped at step ")
    assert last.endswith("of 400; go on with: dfplanner train tiny.json --data data/u.hdf5 --out run --resume")


def _listed(folder: Path) -> dict[str, Any]:
    """What ``checkpoints`` says of the run."""
    (entry,) = json.loads(run("checkpoints", "run", "--json", cwd=folder)[0])
    assert entry["facts"]["config"]["name"] == "tiny"
    assert entry["facts"]["data"]["steps"] >= 5000
    return entry


def _is_picture(path: Path) -> None:
    """It opens as what its name says; animations hold several frames that differ."""
    if path.suffix == ".mp4":
        film, frames = cv2.VideoCapture(str(path)), []
        while (frame := film.read())[0]:
            frames.append(frame[1])
    else:
        with Image.open(path) as image:
            assert image.format == path.suffix[1:].upper()
            if path.suffix == ".png":
                assert np.ptp(np.asarray(image.convert("L"))) > 0
                return
            frames = []
            for i in range(getattr(image, "n_frames", 1)):
                image.seek(i)
                frames.append(np.asarray(image.convert("RGB")))
    assert len(frames) > 5
    assert (frames[0] != frames[-1]).any()


def _keeps_the_contract(r: dict[str, Any], episodes: int, seed: int) -> None:
    for key in ("success_rate", "raw_return", "normalized_score", "latched_score", "steps_to_goal"):
        assert {"mean", "lo", "hi"} <= r[key].keys()
    for key in ("plan_ms", "tick_ms"):
        assert r[key].keys() == {"p50", "p99"}
    assert (r["episodes"], r["seed"]) == (episodes, seed)
    assert r["actions"] == ("diffused" if r["policy"] == "df" else None)
    assert (r["nfe_per_plan"] > 0) == (r["plan_ms"]["p50"] is not None) == (r["policy"] == "df")
    detail = r["detail"]
    assert [d["seed"] for d in detail] == [1_000_000 * seed + i for i in range(episodes)]
    scores = normalized_score(MAZES["umaze"], [d["return"] for d in detail])
    assert r["normalized_score"]["mean"] == pytest.approx(np.mean(scores))
    assert r["success_rate"]["mean"] == pytest.approx(np.mean([d["first_arrival"] >= 0 for d in detail]))


def test_help_is_quick_for_it_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from dfplanner.cli import main; main(['--help']); print({'torch', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert not end.value.code
    assert capsys.readouterr().out.startswith(f"usage: dfplanner {command}")


def test_help_of_a_configuration_shows_its_own_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "maze2d-large", "--help"])
    assert "(default: maze2d-large)" in capsys.readouterr().out


def test_a_real_process_says_it_the_same_way(here: Path) -> None:
    for order in ("plan --checkpoint ok.safetensors --start 1.8,0.8 --goal 2.8,0.8", "train tiny.json --data nan.hdf5"):
        out, err = run(*order.split(), code=2, cwd=here)
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("dfplanner: ") and "Traceback" not in err


def test_the_same_seed_plans_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for seed in ("1", "1", "2"):
        assert main([*PLAN.split(), "--seed", seed]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


def test_a_benchmark_repeats_itself_and_keeps_episodes_apart(here: Path) -> None:
    def bench(
        policies: Sequence[str], seed: int, say: Callable[[str], Any] = lambda table: None
    ) -> list[dict[str, Any]]:
        return run_bench(
            ["multi2d-umaze"], policies, episodes=4, seed=seed, checkpoint="ok.safetensors", timed_plans=0, say=say,
            progress=False,
        )  # fmt: skip

    tables: list[str] = []
    first, again, other = bench(["df", "random"], 0, tables.append), bench(["random", "df", "df"], 0), bench(["df"], 1)
    assert {r["policy"]: r for r in first} == {r["policy"]: r for r in again}
    assert [r["policy"] for r in again] == ["random", "df"]
    starts = [[d["start"] for d in r["detail"]] for r in (*first, *other)]
    assert starts[0] == starts[1] != starts[2]
    assert len(tables) == 1 and "random" in tables[0]


def test_the_bundled_checkpoint_plans_to_the_goal_and_gets_there(tmp_path: Path) -> None:
    goal = ("--start", "0.8,2.8", "--goal", "0.8,0.8", "--plot", str(tmp_path / "plan.gif"))
    said, _ = run("plan", "--checkpoint", "maze2d-umaze", *goal, cwd=tmp_path)
    assert float(said.split(" m away")[0].split()[-1]) < 0.5
    (r,) = run_bench(
        ["maze2d-umaze"], ["df"], episodes=8, seed=5, timed_plans=0, say=lambda table: None, progress=False
    )
    assert r["success_rate"]["mean"] == 1.0


def test_checkpoints_are_listed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "ok.safetensors", "arm.safetensors"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "env", "parameters", "MiB", "steps", "score"]
    assert [line.split()[:2] for line in lines] == [["ok.safetensors", "maze2d-umaze"], ["arm.safetensors", "–"]]
    assert main(["checkpoints", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(bundled())


@pytest.mark.parametrize("name", ["plan.png", "plan.gif", "plan.mp4"])
def test_a_plan_is_drawn(name: str, here: Path) -> None:
    assert main([*PLAN.split(), "--plot", name]) == 0
    _is_picture(here / name)
