"""A checkpoint comes back as it was, or says in a sentence why it cannot; a file is never half written."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dfplanner import checkpoint as module
from dfplanner.bench.rows import ROWS, default_rows
from dfplanner.checkpoint import Checkpoint, atomic_write, bundled, resolve, same_weights, save_tensors
from dfplanner.data.tokens import Tokenizer
from dfplanner.models.build import ModelConfig, build_model
from dfplanner.models.inverse import InverseDynamics
from dfplanner.schedules import Schedule
from dfplanner.types import DFPlannerError, TokenSpec

SPEC = TokenSpec(obs_dim=4, act_dim=2, chunk=3, act_code=5, horizon=6, dt_s=0.02)
MODELS = {
    "causal": ModelConfig(width=16, layers=1, heads=2, ff=16),
    "non-causal": ModelConfig(width=16, layers=1, heads=2, ff=16, causal=False),
    "gru": ModelConfig(kind="gru", width=16, layers=1),
    "relative": ModelConfig(width=16, layers=1, heads=2, ff=16, relative=3),
}


def make(config: ModelConfig = MODELS["causal"], inverse: bool = True) -> Checkpoint:
    """A checkpoint of untrained weights, everything in it drawn at random."""
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build_model(config, SPEC, 100)
        for p in model.parameters():  # also those that begin as zero
            torch.nn.init.normal_(p, std=0.2)
        dynamics = InverseDynamics(SPEC) if inverse else None
    tokenizer = Tokenizer.fit(
        SPEC, rng.normal(2, 3, (50, 4)).astype(np.float32), rng.normal(0, 1, (40, 3, 2)).astype(np.float32)
    )
    return Checkpoint(SPEC, Schedule("sigmoid", 100), "x0", config, model, tokenizer, dynamics, {"score": None})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make().save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_loaded_computes_the_same(kind: str, tmp_path: Path) -> None:
    before = make(MODELS[kind])
    before.save(tmp_path / "m.safetensors")
    after = Checkpoint.load(tmp_path / "m.safetensors")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, SPEC.width, generator=g)
    levels = torch.randint(0, 101, (2, 7, 2), generator=g)
    with torch.no_grad():
        # to rounding: where the weights lie in memory decides which of oneDNN's kernels runs a GRU
        torch.testing.assert_close(before.model(x, levels), after.model(x, levels), rtol=0, atol=1e-6)
    states, goal = torch.randn(2, 6, 4, generator=g), torch.randn(2, 2, generator=g)
    chunks = torch.randn(2, 5, 3, 2, generator=g)
    tokens = before.tokenizer.encode(states, chunks, goal)
    assert torch.equal(tokens, after.tokenizer.encode(states, chunks, goal))
    assert before.inverse is not None and after.inverse is not None
    now, then = np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32)
    chunk = before.inverse.chunk(before.tokenizer, now, then)
    assert np.array_equal(chunk, after.inverse.chunk(after.tokenizer, now, then))
    for part in ("spec", "schedule", "prediction", "model_config", "facts"):
        assert getattr(before, part) == getattr(after, part)
    assert not any(p.requires_grad for p in after.model.parameters())


def test_a_checkpoint_without_inverse_dynamics_has_none(tmp_path: Path) -> None:
    make(inverse=False).save(tmp_path / "m.safetensors")
    assert Checkpoint.load(tmp_path / "m.safetensors").inverse is None


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        make().save(tmp_path / name)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_weights_that_differ_are_not_the_same() -> None:
    a, b = make().model, make().model
    assert same_weights(a, b)
    next(b.parameters()).data.view(-1)[0] += 1e-6
    assert not same_weights(a, b)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_a_sentence(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    part = saved.with_name("part.safetensors")
    part.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DFPlannerError, match=r"part\.safetensors cannot be read as safetensors"):
        Checkpoint.load(part)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_damaged_header_is_a_sentence_or_harmless(saved: Path, data: st.DataObject) -> None:
    damaged = bytearray(saved.read_bytes())
    length = int.from_bytes(damaged[:8], "little")
    where = data.draw(st.integers(0, 8 + length - 1))
    damaged[where] ^= data.draw(st.integers(1, 255))
    path = saved.with_name("damaged.safetensors")
    path.write_bytes(bytes(damaged))
    try:
        Checkpoint.load(path)
    except DFPlannerError as e:
        assert "damaged.safetensors" in str(e) or "checkpoint" in str(e)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other/1"}, "not a dfplanner checkpoint"),
        ({"spec": {"obs_dim": 4}}, "TokenSpec could not be read"),
        ({"spec": {**SPEC.to_dict(), "obs_dim": 7}}, "does not hold what its header promises"),
        ({"schedule": {"kind": "steep", "levels": 100}}, "does not hold what its header promises.*steep"),
        ({"model": {"wings": 2}}, "does not hold what its header promises.*wings"),
        ({"model": {"width": 16, "layers": 2, "heads": 2, "ff": 16}}, "does not hold what its header promises"),
        ({"prediction": None}, "does not hold what its header promises.*prediction"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_header_that_does_not_fit_is_a_sentence(saved: Path, changes: dict, said: str) -> None:
    tensors, header = module.load_tensors(saved)
    header = {k: v for k, v in (header | changes).items() if v is not None}
    save_tensors(saved, tensors, header)
    with pytest.raises(DFPlannerError, match=said):
        Checkpoint.load(saved)


def test_foreign_files_are_a_sentence(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    for header in ({}, {"dfplanner": "[1]"}, {"dfplanner": "{"}):
        save_file({"weight": torch.zeros(2)}, foreign, metadata=header or None)
        with pytest.raises(DFPlannerError, match="foreign"):
            Checkpoint.load(foreign)
    for content in (b"", b"hello", json.dumps({"a": 1}).encode() * 100):
        foreign.write_bytes(content)
        with pytest.raises(DFPlannerError, match="cannot be read as safetensors"):
            Checkpoint.load(foreign)


def test_a_missing_one_lists_those_there_are(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.setattr(module, "BUNDLED", saved.parent)
    assert Checkpoint.load("model").spec == SPEC
    with pytest.raises(DFPlannerError, match="unknown checkpoint 'modle'; bundled: model; or give a file"):
        Checkpoint.load("modle")
    with pytest.raises(DFPlannerError, match="no such checkpoint file"):
        module.load_tensors(saved.with_name("gone.safetensors"))


def test_a_runs_folder_stands_for_its_checkpoint(saved: Path) -> None:
    folder = saved.parent
    (folder / "state.safetensors").write_bytes(b"")
    (folder / ".model.safetensors.x.safetensors").write_bytes(b"what a killed process leaves")
    assert resolve(folder) == saved
    (folder / "second.safetensors").write_bytes(b"")
    with pytest.raises(DFPlannerError, match="holds 2 checkpoints; give the path of one"):
        resolve(folder)


def test_a_hub_id_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    asked = []

    def download(repo: str, name: str) -> str:
        asked.append((repo, name))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert Checkpoint.load("somebody/a-model").spec == SPEC
    assert asked == [("somebody/a-model", "model.safetensors")]
    with pytest.raises(DFPlannerError, match="unknown checkpoint"):
        Checkpoint.load("./somebody/gone.safetensors")  # a path: the hub is left alone
    assert len(asked) == 1


def test_what_the_hub_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, name: str) -> str:
        raise ConnectionError(f"no route to {repo} for {name}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(DFPlannerError, match=r"'somebody/a-model' is neither a file nor .* \(ConnectionError\)"):
        Checkpoint.load("somebody/a-model")


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(part: str) -> None:
        Path(part).write_text("half of the ne")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        atomic_write(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(tensors: dict, path: str, metadata: dict) -> None:
        Path(path).write_bytes(before[:100])
        raise OSError("no space left")

    monkeypatch.setattr(module, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        make(MODELS["gru"]).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


BUNDLED = bundled()


def test_every_row_of_the_table_has_its_weights() -> None:
    for maze in ("umaze", "medium", "large"):
        assert default_rows(f"maze2d-{maze}") == list(ROWS)


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_a_bundled_checkpoint_is_small_and_says_how_it_was_made(name: str) -> None:
    checkpoint = Checkpoint.load(name)
    assert BUNDLED[name].stat().st_size <= 8 * 10**6
    assert checkpoint.facts["config"]["name"] == name
    assert name.startswith(checkpoint.facts["config"]["env"])
    assert checkpoint.facts["step"] > 0
    assert all(torch.isfinite(p).all() for p in checkpoint.model.parameters())
