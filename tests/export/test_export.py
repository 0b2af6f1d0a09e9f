"""One file is a planner: its graph is the model, its metadata is everything else, and half a file is never written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfplanner.checkpoint import Checkpoint
from dfplanner.cli import main
from dfplanner.export import OPSET, Exporter, export_onnx
from dfplanner.models.inverse import InverseDynamics
from dfplanner.runtime import load_planner
from dfplanner.runtime.file import KEY, OnnxCheckpoint
from dfplanner.schedules import Schedule
from dfplanner.testing import GaussianDenoiser, as_checkpoint
from dfplanner.types import DFPlannerError, TokenSpec


class Untraceable(torch.nn.Module):
    """It takes a number out of its tensors, which an exporter that follows tensors alone keeps for good."""

    causal = True

    def forward(self, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return x + 0 * levels.sum() + float(x.sum())


@given(b=st.integers(1, 9), t=st.integers(1, 7), seed=st.integers(0, 999))
def test_the_graph_is_the_model_at_any_batch_and_length(pair: Any, b: int, t: int, seed: int) -> None:
    rng, levels = np.random.default_rng(seed), pair.torch.schedule.levels
    x = rng.standard_normal((b, t, 8), dtype=np.float32)
    k = rng.integers(0, levels + 1, (b, t, 2))
    expected = pair.torch.checkpoint.model(torch.from_numpy(x), torch.from_numpy(k)).numpy()
    np.testing.assert_allclose(pair.onnx.checkpoint.model(x, k), expected, atol=2e-5)


def test_a_causal_graph_sees_no_later_token(pair: Any) -> None:
    rng, model = np.random.default_rng(0), pair.onnx.checkpoint.model
    x, k = rng.standard_normal((2, 7, 8), dtype=np.float32), rng.integers(0, 100, (2, 7, 2))
    apart = np.abs(model(x, k)[:, :3] - model(x[:, :3], k[:, :3])).max()
    assert model.causal == pair.torch.checkpoint.model.causal
    assert apart < 1e-5 if model.causal else apart > 1e-3


def test_names_types_and_free_axes(pair: Any) -> None:
    graph = onnx.load(str(pair.file))
    onnx.checker.check_model(graph, full_check=True)
    found = {}
    for value in (*graph.graph.input, *graph.graph.output):
        kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
        found[value.name] = kind, tuple(d.dim_param or d.dim_value for d in dims)
    free, float32, int64 = ("batch", "length"), onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    assert found["tokens"] == (float32, (*free, 8)) and found["levels"] == (int64, (*free, 2))
    assert found["prediction"][0] == float32 and len(found["prediction"][1]) == 3 and len(found) == 3
    assert graph.opset_import[0].version in OPSET.values()
    assert b".py" not in pair.file.read_bytes(), "where an operator came from is nobody's business"


def test_everything_else_is_there_to_the_bit(pair: Any) -> None:
    ours, theirs = pair.torch.checkpoint, pair.onnx.checkpoint
    assert (theirs.spec, theirs.prediction, theirs.facts) == (ours.spec, ours.prediction, ours.facts)
    for name, value in ours.tokenizer.stats().items():
        np.testing.assert_array_equal(getattr(theirs.tokenizer, name), value.numpy())
    for mine, table in zip(ours.schedule.rates(torch.arange(ours.schedule.levels + 1)), (0, 1), strict=True):
        np.testing.assert_array_equal(theirs.schedule.rates(np.arange(ours.schedule.levels + 1))[table], mine.numpy())
    now, then = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    inverse: InverseDynamics = ours.inverse
    np.testing.assert_allclose(
        theirs.inverse.chunk(theirs.tokenizer, now, then), inverse.chunk(ours.tokenizer, now, then), atol=1e-6
    )


def test_without_an_inverse_dynamics_there_is_none(make_small: Any, tmp_path: Path) -> None:
    checkpoint = make_small("gru")
    checkpoint.inverse = None
    assert load_planner(export_onnx(checkpoint, tmp_path / "a.onnx")).checkpoint.inverse is None


def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(make_small: Any, tmp_path: Path) -> None:
    old = tmp_path / "a.onnx"
    old.write_text("old")
    spec = TokenSpec(1, 1, chunk=1, act_code=1, horizon=1, dt_s=1.0)
    ideal = GaussianDenoiser(torch.zeros(2, 2), torch.eye(4), Schedule(), torch.tensor([0, 1]))
    cases: list[tuple[Checkpoint, Exporter, str]] = [
        (as_checkpoint(spec, ideal, Schedule()), "torchscript", "could not export this model by 'torchscript'"),
        (as_checkpoint(spec, Untraceable(), Schedule()), "torchscript", "away from the model"),
        (make_small("causal", float("nan")), "torchscript", "is nan away from the model"),
        (make_small("gru"), "dynamo", "take 'torchscript'"),
    ]
    for checkpoint, how, said in cases:
        with pytest.raises(DFPlannerError, match=said):
            export_onnx(checkpoint, old, how)
        assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


def test_what_is_no_planner_is_told_in_a_sentence(causal: Any, tmp_path: Path) -> None:
    graph = onnx.load(str(causal.file))

    def broken(**changed: Any) -> Path:
        entry = graph.metadata_props[0]
        text, path = entry.value, tmp_path / "broken.onnx"
        entry.value = json.dumps({k: v for k, v in {**json.loads(text), **changed}.items() if v is not None})
        onnx.save(graph, str(path))
        entry.value = text
        return path

    plain = onnx.load(str(causal.file))
    del plain.metadata_props[:]
    onnx.save(plain, str(tmp_path / "plain.onnx"))
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "cut.onnx").write_bytes(causal.file.read_bytes()[:-5000])
    assert graph.metadata_props[0].key == KEY and broken().is_file()
    OnnxCheckpoint.load(broken())
    wrong = {
        "there is no file": lambda: load_planner("maze2d-umaze"),
        "is an ONNX model but no planner": lambda: load_planner(tmp_path / "plain.onnx"),
        "text.onnx cannot be used by ONNX Runtime": lambda: load_planner(tmp_path / "text.onnx"),
        "cut.onnx cannot be used by ONNX Runtime": lambda: load_planner(tmp_path / "cut.onnx"),
        "has the format 'dfplanner-onnx/9'": lambda: load_planner(broken(format="dfplanner-onnx/9")),
        "promises .*'tensors'": lambda: load_planner(broken(tensors=None)),
        "promises .*levels": lambda: load_planner(broken(levels=7)),
        "promises .*prediction": lambda: load_planner(broken(prediction="score")),
        "do not fit": lambda: load_planner(broken(spec=causal.onnx.spec.to_dict() | {"obs_dim": 5})),
        "0 threads": lambda: load_planner(causal.file, threads=0),
    }
    for said, call in wrong.items():
        with pytest.raises(DFPlannerError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


def test_from_the_command_line(make_small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_small("gru").save(tmp_path / "gru.safetensors")
    file = tmp_path / "new" / "gru.onnx"
    assert main(["export", str(tmp_path / "gru.safetensors"), "--onnx", str(file)]) == 0
    assert f"wrote {file}" in capsys.readouterr().out
    points = ["--start", "0.8,0.8", "--goal", "2.8,0.8", "--scheme", "full-sequence"]
    said = []
    for name, runtime in ((tmp_path / "gru.safetensors", "torch"), (file, "onnx")):
        assert main(["plan", "--checkpoint", str(name), "--runtime", runtime, *points]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "6 states over 0.25 s" in said[0]
    for wrong, words in (
        (["export", "gru", "--onnx", str(file)], "unknown checkpoint 'gru'"),
        (["export", str(tmp_path / "gru.safetensors"), "--onnx", str(tmp_path / "gru.pt")], "ends in .onnx"),
        (["export", "gru"], "missing from dfplanner export: --onnx"),
        (["plan", "--checkpoint", str(file), "--runtime", "onnx", "--how", "guidance", *points], "needs a gradient"),
    ):
        assert main(wrong) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
