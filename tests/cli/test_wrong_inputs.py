"""Every wrong input is one sentence on stderr and exit code 2, never a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from dfplanner.cli import main
from dfplanner.cli.common import point
from dfplanner.types import DFPlannerError

PLAN = "plan --checkpoint ok.safetensors --start 0.8,0.8 --goal 2.8,0.8"
WRONG = {
    # unknown names list the known ones
    "frobnicate": "no command is called 'frobnicate'; known ones are collect, train, bench, plan, .*doctor",
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
    "plan --checkpoint point.safetensors --start 1,1 --goal 3,1": "dfplanner bench PointMaze_UMaze-v3 --policy df",
    # shapes
    "train tiny.json --data flat.hdf5": r"observations in flat.hdf5 have the shape \(300,\); \(steps, numbers\)",
    "train tiny.json --data short.hdf5": r"actions have the shape \(10, 2\)",
    "train tiny.json --data wide.hdf5": r"numbers, maze2d-umaze of \(4, 2\)",
    "train tiny.json --data ok.hdf5 --horizon 60 --no-stay": "no episode is as long as one window of 591 steps",
    "train tiny.json --data ok.hdf5 --no-stay --act-code 1": "act_code is 1; training needs at least 2",
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
    "bench --action-noise=-1 --policy random": "action noise of -1.0 came",
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


def test_points_that_are_none_are_a_sentence() -> None:
    for words in ((), ("1",), ("1,2,3",), ("a,b",), ("nan,1",), ("1,inf",)):
        with pytest.raises(DFPlannerError, match="two finite numbers"):
            point(words, "goal")
