"""The command line: end to end through real processes, and every wrong input is one sentence and exit code 2."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from dfplanner.bench.run import run_bench
from dfplanner.checkpoint import Checkpoint, bundled
from dfplanner.cli import COMMANDS, main
from dfplanner.cli.common import point
from dfplanner.data.tokens import Tokenizer
from dfplanner.models.build import ModelConfig, build_model
from dfplanner.schedules import Schedule
from dfplanner.types import DFPlannerError, TokenSpec
from dfplanner_envs.mazes import MAZES, normalized_score

TINY = {
    "name": "tiny",
    "env": "maze2d-umaze",
    "chunk": 10,
    "horizon": 8,
    "steps": 400,
    "act_code": 6,
    "batch": 16,
    "save_every": 50,
    "eval_every": 0,
    "stay": False,
    "model": {"width": 32, "layers": 1, "heads": 2, "ff": 32},
}


def run(*args: str, code: int = 0, cwd: Path) -> tuple[str, str]:
    """Stdout and stderr of a real process, which must end with that exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "dfplanner", *args], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_from_nothing_to_a_scored_pictured_rollout(tmp_path: Path) -> None:
    run("collect", "maze2d-umaze", "--steps", "5000", "--seed", "3", "--out", "data/u.hdf5", cwd=tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    order = ("train", "tiny.json", "--data", "data/u.hdf5", "--out", "run")
    _interrupted(order, tmp_path)
    said, _ = run(*order, "--resume", cwd=tmp_path)
    assert "wrote run/tiny.safetensors (score " in said
    assert _listed(tmp_path)["steps"] == 400
    goal = ("--start", "0.8,0.8", "--goal", "2.8,", "0.8")
    said, _ = run("plan", "--checkpoint", "run", *goal, "--plot", "plan.gif", cwd=tmp_path)
    assert said.startswith("8 states over 0.70 s, ending at")
    _is_picture(tmp_path / "plan.gif")
    envs, rows = ("maze2d-umaze", "multi2d-umaze"), ("df", "random", "data-controller")
    outputs = ("--json", "out/b.json", "--plot", "out/b.png")
    numbers = ("--episodes", "3", "--seed", "2", "--checkpoint", "run")
    said, _ = run("bench", *envs, "--policy", *rows, *numbers, *outputs, cwd=tmp_path)
    for env in envs:
        assert said.count(f"{env}\n") == 1
    for name in ("b.png", "b.gif", "b.mp4"):
        assert f"wrote out/{name}" in said
        _is_picture(tmp_path / "out" / name)
    written = json.loads((tmp_path / "out/b.json").read_text())
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
    _, said = process.communicate(timeout=60)
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


def untrained(path: Path, weight: float | None = None, env: str | None = "maze2d-umaze") -> Path:
    """A checkpoint of random weights, or of one weight everywhere, that says it is for ``env``."""
    spec, rng = TokenSpec(obs_dim=4, act_dim=2, chunk=10, act_code=4, horizon=6, dt_s=0.01), np.random.default_rng(0)
    config = ModelConfig(width=16, layers=1, heads=2, ff=16)
    model = build_model(config, spec, 1000)
    if weight is not None:
        for p in model.parameters():
            torch.nn.init.constant_(p, weight)
    numbers = rng.normal(size=(60, 4)).astype(np.float32), rng.normal(size=(60, 10, 2)).astype(np.float32)
    facts = {"config": {"env": env}, "step": 0, "score": None}
    Checkpoint(spec, Schedule(), "v", config, model, Tokenizer.fit(spec, *numbers), None, facts).save(path)
    return path


def data(path: Path, **arrays: Any) -> Path:
    """A file in D4RL's layout of 300 steps, with other arrays as given (None: left out)."""
    n, rng = 300, np.random.default_rng(0)
    whole: dict[str, Any] = {"observations": rng.random((n, 4)), "actions": rng.random((n, 2)), "rewards": np.zeros(n)}
    with h5py.File(path, "w") as file:
        for name, array in (whole | {"terminals": np.zeros(n, bool)} | arrays).items():
            if array is not None:
                file[name] = array
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that can be wrong."""
    monkeypatch.chdir(tmp_path)
    untrained(tmp_path / "ok.safetensors")
    untrained(tmp_path / "nan.safetensors", weight=float("nan"))
    untrained(tmp_path / "arm.safetensors", env=None)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "ok.safetensors").read_bytes()[:-20])
    (tmp_path / "file").write_text("hello")
    (tmp_path / "text.hdf5").write_text("hello")
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    (tmp_path / "typo.json").write_text(json.dumps(TINY | {"stepz": 3}))
    data(tmp_path / "nan.hdf5", observations=np.full((300, 4), np.nan))
    data(tmp_path / "flat.hdf5", observations=np.zeros(300))
    data(tmp_path / "short.hdf5", actions=np.zeros((10, 2)))
    data(tmp_path / "lacking.hdf5", actions=None)
    data(tmp_path / "wide.hdf5", observations=np.zeros((300, 7)))
    data(tmp_path / "ok.hdf5")
    return tmp_path


PLAN = "plan --checkpoint ok.safetensors --start 0.8,0.8 --goal 2.8,0.8"
WRONG = {
    # unknown names list the known ones
    "frobnicate": "no command is called 'frobnicate'; known ones are collect, train, bench, plan, checkpoints, doctor",
    "collect antmaze": "no environment is called 'antmaze'; known ones are maze2d-umaze, .*multi2d-large",
    "bench maze2d-huge": "no environment is called 'maze2d-huge'; known ones are maze2d-umaze",
    "bench maze2d-umaze --policy random sac": "'sac'.* df, .*data-controller, random",
    "bench maze2d-umaze --policy df --checkpoint umaze": "unknown checkpoint 'umaze'; bundled: ",
    "train umaze": "unknown training configuration 'umaze'; known: maze2d-umaze, .*or give a JSON file",
    "train tiny.json --env antmaze": "no environment is called 'antmaze'; known ones are",
    "checkpoints umaze": "unknown checkpoint 'umaze'; bundled: ",
    "plan --checkpoint umaze --start 1,1 --goal 3,1": "unknown checkpoint 'umaze'; bundled: ",
    f"{PLAN} --scheme staircase": "unknown scheduling scheme 'staircase'; known: full-sequence, .*pyramid",
    "collect maze2d-umaze --format csv": r"invalid choice 'csv'.*\('d4rl', 'minari'\)",
    "bench --actions none": r"invalid choice 'none'.*\('diffused', 'inverse', 'pd'\)",
    "bench --polici df": "unrecognized options: --polici, df; perhaps you meant|unrecognized options: --polici",
    "doctor --all": "unrecognized options: --all; dfplanner doctor --help says what can be given",
    "collect": "missing from dfplanner collect: ENV",
    "train": "missing from dfplanner train: NAME",
    "plan": "missing from dfplanner plan: --checkpoint NAME",
    # bad files
    "train gone.json": "gone.json cannot be read as JSON",
    "train text.json": "text.json cannot be read as JSON",
    "train typo.json": "typo.json holds .*'stepz'.*expected an object with name, env, chunk, horizon, steps",
    "train tiny.json --data gone.hdf5": "there is no file gone.hdf5; make one with `dfplanner collect`",
    "train tiny.json --data text.hdf5": r"text.hdf5 could not be read as HDF5",
    "train tiny.json --data lacking.hdf5": "lacking.hdf5 lacks actions; D4RL's layout is expected",
    "train tiny.json --data gone/set-v0": "'gone/set-v0' is no file, no folder and nothing in D4RL's cache",
    "checkpoints cut.safetensors": "cut.safetensors cannot be read as safetensors",
    "checkpoints file": "file cannot be read as safetensors",
    "plan --checkpoint cut.safetensors --start 1,1 --goal 3,1": "cut.safetensors cannot be read as safetensors",
    "plan --checkpoint arm.safetensors --start 1,1 --goal 3,1": "arm.safetensors was not trained for a maze",
    # shapes
    "train tiny.json --data flat.hdf5": r"observations have the shape \(300,\)",
    "train tiny.json --data short.hdf5": r"actions have the shape \(10, 2\)",
    "train tiny.json --data wide.hdf5": r"numbers, maze2d-umaze of \(4, 2\)",
    "train tiny.json --data ok.hdf5 --horizon 60 --no-stay": "no episode is as long as one window of 591 steps",
    "train tiny.json --data ok.hdf5 --no-stay --act-code 50": "act_code 50 exceeds the chunk's 20 numbers",
    "plan --checkpoint ok.safetensors --start 1,1,1 --goal 3,1": "the start is two finite numbers X,Y",
    "plan --checkpoint ok.safetensors --start 1,1 --goal here": "the goal is two finite numbers X,Y .*'here' came",
    # NaN
    "train tiny.json --data nan.hdf5": "observations hold a value that is not finite at row 0",
    "plan --checkpoint ok.safetensors --start nan,1 --goal 3,1": "the start is two finite numbers",
    "plan --checkpoint ok.safetensors --start 1,1 --goal 3,-inf": "the goal is two finite numbers",
    "plan --checkpoint nan.safetensors --start 0.8,0.8 --goal 2.8,0.8": "numbers that are not finite",
    # unreachable
    "plan --checkpoint ok.safetensors --start 1.8,0.8 --goal 2.8,0.8": "the start 1.8,0.8 lies in a wall of umaze",
    "plan --checkpoint ok.safetensors --start 0.8,0.8 --goal=-3,0.8": "goal -3,0.8 lies in a wall of umaze or outside",
    "plan --checkpoint ok.safetensors --start 0.8,0.8 --goal 99,99": "the nearest free cell's middle is 2.8,2.8",
    # numbers that cannot be
    "collect maze2d-umaze --steps 0": "0 steps and seed 0 came",
    "collect maze2d-umaze --seed -1": "seed -1 came",
    "collect maze2d-umaze --steps many": "error parsing --steps: .*'many'",
    "bench --episodes 0": "0 episodes came",
    "bench --seed -1": "seed -1 and",
    "train tiny.json --steps 0": "steps is 0; training needs at least 1",
    "train tiny.json --data ok.hdf5 --threads 0": "0 threads came",
    "train tiny.json --data ok.hdf5 --no-stay --width 33": "model width 33 cannot be split into 2 heads",
    f"{PLAN} --steps 0": "0 sampling steps were asked",
    f"{PLAN} --horizon 1": "a plan needs a horizon of at least 2 tokens",
    # what is not there
    "train tiny.json --device abacus": "the device 'abacus' cannot be used",
    "bench maze2d-umaze --policy random --device abacus": "the device 'abacus' cannot be used",
    "bench maze2d-umaze --policy df --actions inverse --checkpoint ok.safetensors": "holds no inverse dynamics",
    # outputs that cannot be written
    "collect maze2d-umaze --out file/u.hdf5": "file/u.hdf5 cannot be written",
    "collect maze2d-umaze --out .": r"\. is a folder; give the name of a file",
    "train tiny.json --data ok.hdf5 --out file": "file/metrics.jsonl cannot be written",
    "bench maze2d-umaze --policy random --json file/b.json": "file/b.json cannot be written",
    "bench maze2d-umaze --policy random --plot b.jpg": "'b.jpg' cannot be drawn: a picture's name ends in .png",
    "bench maze2d-umaze --policy random --animation b.webm": "'b.webm' cannot be drawn: .*.gif .*or .mp4",
    f"{PLAN} --plot plan.bmp": "'plan.bmp' cannot be drawn: a picture's name ends in .png .*, .gif .*or .mp4",
    f"{PLAN} --plot file/plan.png": "file/plan.png cannot be written",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(
    line: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("dfplanner: ")
    assert re.search(WRONG[line], err), err


def test_a_real_process_says_it_the_same_way(here: Path) -> None:
    for order in ("plan --checkpoint ok.safetensors --start 1.8,0.8 --goal 2.8,0.8", "train tiny.json --data nan.hdf5"):
        out, err = run(*order.split(), code=2, cwd=here)
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("dfplanner: ") and "Traceback" not in err


def test_a_run_of_another_configuration_is_not_resumed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dfplanner import train as module

    real, module.fit_inverse = module.fit_inverse, lambda w, t, s: real(w, t, s, steps=2)
    try:
        order = [
            "train",
            "tiny.json",
            "--data",
            "ok.hdf5",
            "--no-stay",
            "--env",
            "none",
            "--steps",
            "3",
            "--out",
            "run",
        ]
        assert main(order) == 0
        capsys.readouterr()
        assert main([*order, "--resume", "--lr", "0.5"]) == 2
    finally:
        module.fit_inverse = real
    assert "was trained with another lr; resume with the same configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("1,-2.5",), ("1,", "-2.5"), ("1", "-2.5"), ("1 , -2.5",), (" 1", ",-2.5 "), ("+1.0,-25e-1",)]
)
def test_points_are_read_however_they_are_spaced(words: tuple[str, ...]) -> None:
    assert np.array_equal(point(words, "goal"), [1, -2.5])


@pytest.mark.parametrize("start", ["-0.2,1", "-0.2, 1", "-0.2 1"])
def test_negative_coordinates_reach_the_maze(start: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--checkpoint", "ok.safetensors", "--start", *start.split(), "--goal", "0.8,0.8"]) == 2
    assert "the start -0.2,1 lies in a wall" in capsys.readouterr().err


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


@pytest.mark.skipif("maze2d-umaze" not in bundled(), reason="no checkpoint for maze2d-umaze is bundled yet")
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


def test_points_that_are_none_are_a_sentence() -> None:
    for words in ((), ("1",), ("1,2,3",), ("a,b",), ("nan,1",), ("1,inf",)):
        with pytest.raises(DFPlannerError, match="two finite numbers"):
            point(words, "goal")
