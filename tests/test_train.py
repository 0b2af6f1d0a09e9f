"""Training: killed at any moment it resumes to the same result, it keeps the best, and says what cannot be."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfplanner import train as module
from dfplanner.checkpoint import Checkpoint, same_weights
from dfplanner.cli import main
from dfplanner.configs import CONFIGS, load_config
from dfplanner.data import Episodes, write_hdf5
from dfplanner.models.build import ModelConfig
from dfplanner.schedules import Schedule, target
from dfplanner.train import TrainConfig, loss_on, train
from dfplanner.types import DFPlannerError
from dfplanner_envs.collect import collect

TINY = TrainConfig(
    "tiny",
    "maze2d-umaze",
    chunk=5,
    horizon=6,
    steps=300,
    stay=False,
    act_code=4,
    batch=16,
    model=ModelConfig(width=16, layers=1, heads=2, ff=16),
    eval_every=100,
    save_every=50,
)
SHORT = replace(TINY, steps=12, eval_every=0, save_every=5)


def quick(monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """The inverse dynamics, a fit of its own, for a few steps only."""
    fit = functools.partial(module.fit_inverse, steps=3)
    if monkeypatch:
        monkeypatch.setattr(module, "fit_inverse", fit)
    else:
        module.fit_inverse = fit


def some_episodes() -> Episodes:
    return collect("maze2d-umaze", 2000, 0)


def weight(checkpoint: Checkpoint) -> dict[str, float]:
    """A score that tells any two models apart."""
    return {"score": float(sum(p.abs().sum() for p in checkpoint.model.parameters()))}


def worker(out: str) -> None:
    """What the tests below run in processes of their own: it goes on wherever ``out`` was left."""
    quick()
    torch.set_num_threads(1)
    train(TINY, some_episodes(), Path(out), resume=True, evaluate=weight, progress=False)


def commanded(out: str) -> None:
    """The same by the command line, with the episodes and configuration that lie beside ``out``."""
    quick()
    beside = Path(out).parent
    code = main(["train", str(beside / "tiny.json"), "--data", str(beside / "data.hdf5"), "--out", out])
    threads = [comm.read_text() for comm in Path("/proc/self/task").glob("*/comm")]
    sys.exit(code or next((f"the thread {name} is left" for name in threads if "gloo" in name), 0))


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    return some_episodes()


def metrics(out: Path) -> list[dict[str, float]]:
    """Every line, without what a clock said."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "steps_per_s"} for row in rows]


def files(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("tiny.safetensors", "state.safetensors")}


def start(out: Path, *launcher: str, call: str = "worker") -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_train; "
    script = out.parent / "worker.py"
    script.write_text(f"{code}test_train.{call}({str(out)!r})")
    return subprocess.Popen([sys.executable, *launcher, str(script)], stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    try:
        _, said = process.communicate(timeout=300)
    finally:
        process.terminate()  # no child outlives its test
    assert process.returncode == 0, said.decode()


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path: Path, episodes: Episodes) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.monotonic()
    train(TINY, episodes, whole, evaluate=weight, progress=False)
    span = time.monotonic() - began
    delays = [random.uniform(0, 0.5 * span) for _ in range(3)]
    for delay in delays:
        process = start(broken)
        while process.poll() is None and not (broken / "metrics.jsonl").is_file():
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(broken))
    assert files(broken) == files(whole), f"killed {delays} s after it began"
    assert metrics(broken) == metrics(whole)


@pytest.mark.parametrize("at", [1, 7, 12, 29])
def test_asked_to_stop_it_saves_itself_first(
    at: int, tmp_path: Path, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, steps=30, save_every=10)
    train(config, episodes, tmp_path / "whole", progress=False)
    before, done = signal.getsignal(signal.SIGINT), []

    def interrupted(*args: Any) -> None:
        done.append(args)
        if len(done) == at:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as m:
        real = module.ema_update
        m.setattr(module, "ema_update", lambda *args: (real(*args), interrupted(*args)))
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {at} of 30; go on with --resume"):
            train(config, episodes, tmp_path / "broken", progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    train(config, episodes, tmp_path / "broken", progress=False, resume=True)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_another_configuration_is_not_resumed(tmp_path: Path, episodes: Episodes) -> None:
    train(SHORT, episodes, tmp_path, progress=False)
    other = replace(SHORT, lr=5e-4, model=replace(SHORT.model, width=32))
    with pytest.raises(DFPlannerError, match="was trained with another model, lr; resume with the same"):
        train(other, episodes, tmp_path, progress=False, resume=True)
    train(replace(SHORT, save_every=7), episodes, tmp_path, progress=False, resume=True)  # changes no result


def test_a_run_can_be_lengthened_but_not_cut(tmp_path: Path, episodes: Episodes) -> None:
    train(SHORT, episodes, tmp_path / "a", progress=False)
    train(replace(SHORT, steps=20), episodes, tmp_path / "a", progress=False, resume=True)
    assert [m["step"] for m in metrics(tmp_path / "a")][-1] == 20
    with pytest.raises(DFPlannerError, match="was trained with another steps"):
        train(replace(SHORT, steps=15), episodes, tmp_path / "a", progress=False, resume=True)


def test_a_run_begins_with_a_checkpoint(tmp_path: Path, episodes: Episodes) -> None:
    first = train(SHORT, episodes, tmp_path / "first", progress=False)
    file = tmp_path / "first" / "tiny.safetensors"
    setup = module.prepare(replace(SHORT, init=str(file), seed=5), episodes, "cpu")
    assert same_weights(setup.run.model, first.model) and same_weights(setup.run.average, first.model)
    assert same_weights(setup.tokenizer, first.tokenizer)
    shorter = module.prepare(replace(SHORT, init=str(file), horizon=4), episodes, "cpu").run.model
    assert torch.equal(shorter.state_dict()["embed.place"], first.model.state_dict()["embed.place"][:5])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chunk": 4}, "chunk 5 instead of 4"),
        ({"model": replace(TINY.model, width=32)}, "model "),
        ({"prediction": "x0"}, "prediction v instead of x0"),
        ({"horizon": 9}, "knows 6 tokens, this run has 9"),
    ],
)
def test_a_checkpoint_of_another_shape_begins_no_run(
    change: dict[str, Any], said: str, tmp_path: Path, episodes: Episodes
) -> None:
    train(SHORT, episodes, tmp_path, progress=False)
    with pytest.raises(DFPlannerError, match=said):
        module.prepare(replace(SHORT, init=str(tmp_path / "tiny.safetensors"), **change), episodes, "cpu")


def test_a_damaged_state_is_a_sentence(tmp_path: Path, episodes: Episodes) -> None:
    train(SHORT, episodes, tmp_path, progress=False)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(DFPlannerError, match=r"state\.safetensors cannot be read"):
        train(SHORT, episodes, tmp_path, progress=False, resume=True)


def test_metrics_hold_every_step_once(tmp_path: Path, episodes: Episodes) -> None:
    config = replace(TINY, steps=150)
    train(config, episodes, tmp_path / "whole", evaluate=weight, progress=False)
    # a run that was killed while it wrote a line, between the saves at 50 and 100
    train(config, episodes, tmp_path / "broken", evaluate=weight, progress=False)
    log = tmp_path / "broken" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 200, "lo')
    train(config, episodes, tmp_path / "broken", evaluate=weight, progress=False, resume=True)
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert [row["step"] for row in metrics(tmp_path / "whole") if "loss" in row] == [50, 100, 150]
    assert [row["step"] for row in metrics(tmp_path / "whole") if "score" in row] == [100, 150]


def test_a_new_run_forgets_the_old_ones_metrics(tmp_path: Path, episodes: Episodes) -> None:
    for _ in range(2):
        train(SHORT, episodes, tmp_path, progress=False)
    assert [row["step"] for row in metrics(tmp_path)] == [12]


def test_the_best_is_kept(tmp_path: Path, episodes: Episodes) -> None:
    seen: list[Checkpoint] = []

    def evaluate(checkpoint: Checkpoint) -> dict[str, float]:
        assert checkpoint.facts["step"] == 4 * (len(seen) + 1)
        checkpoint.save(tmp_path / f"{len(seen)}.safetensors")
        seen.append(checkpoint)
        return {"score": [-3.0, 5.0, 4.0][len(seen) - 1]}

    best = train(replace(SHORT, eval_every=4), episodes, tmp_path, evaluate=evaluate, progress=False)
    assert (best.facts["step"], best.facts["score"]) == (8, 5.0)
    assert same_weights(best.model, Checkpoint.load(tmp_path / "1.safetensors").model)
    assert not same_weights(best.model, Checkpoint.load(tmp_path / "2.safetensors").model)
    assert [row["score"] for row in metrics(tmp_path) if "score" in row] == [-3.0, 5.0, 4.0]


def test_without_a_score_the_last_is_kept(tmp_path: Path, episodes: Episodes) -> None:
    last = train(SHORT, episodes, tmp_path, progress=False, facts={"where": "here"})
    assert (last.facts["step"], last.facts["score"], last.facts["where"]) == (12, None, "here")
    assert last.facts["config"] == json.loads(json.dumps(asdict(SHORT)))


def test_a_finished_run_can_be_scored_afterwards(tmp_path: Path, episodes: Episodes) -> None:
    last = train(SHORT, episodes, tmp_path, progress=False)
    scored = train(SHORT, episodes, tmp_path, progress=False, resume=True, evaluate=weight)
    assert same_weights(last.model, scored.model)
    assert scored.facts == last.facts | weight(last)
    assert [row["step"] for row in metrics(tmp_path)] == [12, 12]


@pytest.mark.parametrize(
    "change",
    [
        {"model": ModelConfig(kind="gru", width=16, layers=1)},
        {"model": replace(TINY.model, causal=False), "recipe": "full-sequence"},
        {"recipe": "teacher-forcing"},
        {"recipe": "independent", "prediction": "x0", "weighting": "elbo"},
        {"prediction": "eps", "weighting": "min_snr", "schedule": "sigmoid"},
        {"hindsight": 0.5, "schedule": "linear"},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
def test_every_kind_of_run_learns(change: dict[str, Any], tmp_path: Path, episodes: Episodes) -> None:
    config = replace(TINY, steps=200, ema=0.9, **change)
    checkpoint = train(config, episodes, tmp_path, progress=False)
    first, *_, last = [row["loss"] for row in metrics(tmp_path)]
    assert last < first
    x, levels = torch.zeros(1, config.horizon + 1, checkpoint.spec.width), torch.zeros(1, config.horizon + 1, 2)
    assert torch.isfinite(checkpoint.model(x, levels.long())).all()


def test_data_that_stays_has_a_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fit_pace", functools.partial(module.fit_pace, steps=5))
    train(replace(SHORT, stay=True), collect("maze2d-umaze", 2000, 0, stay=True), tmp_path, progress=False)
    assert np.isfinite(metrics(tmp_path)[-1]["loss"])


def test_bf16_computes_in_bf16_and_keeps_float32(tmp_path: Path, episodes: Episodes) -> None:
    exact = train(SHORT, episodes, tmp_path / "exact", progress=False)
    rough = train(SHORT, episodes, tmp_path / "rough", progress=False, bf16=True)
    assert {p.dtype for p in rough.model.parameters()} == {torch.float32}
    assert not same_weights(exact.model, rough.model)
    a, b = metrics(tmp_path / "exact")[-1]["loss"], metrics(tmp_path / "rough")[-1]["loss"]
    assert b == pytest.approx(a, rel=0.02)


def test_tensorboard_events_are_written(tmp_path: Path, episodes: Episodes) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    train(SHORT, episodes, tmp_path, progress=False, tensorboard=True)
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path, episodes: Episodes) -> None:
    with pytest.raises(DFPlannerError, match="the loss is nan at step 12; lower the learning rates"):
        train(replace(SHORT, lr=1e30, muon_lr=1e30), episodes, tmp_path, progress=False)


@pytest.mark.slow
def test_two_ranks_share_a_batch(tmp_path: Path) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this PyTorch was built without gloo")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    (tmp_path / "tiny.json").write_text(json.dumps(asdict(TINY)))
    write_hdf5(tmp_path / "data.hdf5", some_episodes())
    finish(start(tmp_path / "two", *launcher, call="commanded"))
    assert [row["step"] for row in metrics(tmp_path / "two") if "loss" in row] == list(range(50, 301, 50))
    best = Checkpoint.load(tmp_path / "two").facts["score"]
    assert best == max(row["score"] for row in metrics(tmp_path / "two") if "score" in row)


def test_a_batch_that_ranks_cannot_share_is_a_sentence(
    tmp_path: Path, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(DFPlannerError, match="a batch of 16 cannot be shared among 3 ranks"):
        train(SHORT, episodes, tmp_path, progress=False)


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_the_loss_is_zero_for_the_truth_and_blind_to_what_does_not_count(prediction: Any) -> None:
    g = torch.Generator().manual_seed(0)
    schedule, config = Schedule("cosine", 50), replace(TINY, prediction=prediction, weighting="v")
    parts = torch.tensor([0, 0, 1])
    tokens, noise, wrong = (torch.randn(4, 5, 3, generator=g) for _ in range(3))
    levels = torch.randint(1, 50, (4, 5, 2), generator=g)
    mask = torch.rand(4, 5, 2, generator=g) < 0.5
    truth = target(tokens, noise, *schedule.rates(levels[..., parts]), prediction)

    def loss(prediction: torch.Tensor) -> float:
        model: Any = lambda x, k: prediction  # noqa: E731
        return float(loss_on(model, tokens, levels, mask, noise, schedule, config, parts))

    assert loss(truth) == 0
    assert loss(torch.where(mask[..., parts], truth, wrong)) == 0
    assert loss(torch.where(mask[..., parts], truth + wrong, truth)) > 0


@pytest.mark.parametrize("field", ["chunk", "horizon", "steps", "data_steps", "act_code", "batch", "save_every"])
def test_numbers_that_cannot_be_are_a_sentence(field: str) -> None:
    with pytest.raises(DFPlannerError, match=f"{field} is 0; training needs at least"):
        replace(TINY, **{field: 0})


def test_a_name_that_is_no_file_name_is_a_sentence() -> None:
    with pytest.raises(DFPlannerError, match="'a/b' cannot"):
        replace(TINY, name="a/b")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_survives_json(name: str, tmp_path: Path) -> None:
    assert CONFIGS[name].name == name
    path = tmp_path / "config.json"
    path.write_text(json.dumps(asdict(CONFIGS[name])))
    assert load_config(path) == load_config(name) == CONFIGS[name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds list; expected an object with name, env, chunk, horizon, steps"),
        ('{"name": "x"}', r"holds \['name'\]; expected an object with name, env"),
        ('{"name": "x", "env": "y", "chunk": 1, "horizon": 2, "steps": "3"}', "steps in .* is '3'; expected a int"),
        ('{"name": "x", "env": "y", "chunk": 1, "horizon": 2, "steps": 3, "foo": 1}', "holds .*'foo'"),
        ('{"name": "x", "env": "y", "chunk": 1, "horizon": 2, "steps": 3, "recipe": "a"}', "one of diffusion-forcing"),
        ('{"name": "x", "env": "y", "chunk": 1, "horizon": 2, "steps": 3, "model": {"kind": 1}}', "kind in model in"),
        ('{"name": "x", "env": "y", "chunk": 1, "horizon": 2, "steps": 3, "stay": 1}', "expected a bool"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(DFPlannerError, match=said):
        load_config(path)


def test_an_unknown_configuration_lists_the_known() -> None:
    with pytest.raises(DFPlannerError, match="unknown training configuration 'umaze'; known: maze2d-umaze, "):
        load_config("umaze")
