"""A checkpoint as one ONNX file: the network as a graph, everything else that a planner needs in its metadata.

The graph is one denoising step: ``tokens`` (B, T, C) float32 and ``levels`` (B, T, P) int64 to ``prediction``
(B, T, C), for any batch and 1 to horizon + 1 tokens. ``dfplanner.runtime`` samples with it.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from dfplanner.checkpoint import Checkpoint, atomic_write
from dfplanner.models.build import Denoiser
from dfplanner.runtime.file import KEY, Network, OnnxCheckpoint, header
from dfplanner.types import DFPlannerError, TokenSpec

Exporter = Literal["dynamo", "torchscript"]
OPSET = {"dynamo": 23, "torchscript": 18}
"""23 has attention as one operator, which is a fifth quicker; 18 is what older runtimes know."""
TOLERANCE = 1e-4
"""How far the graph may be from the model, in the prediction's own units, which are near 1."""


def export_onnx(checkpoint: Checkpoint, path: str | Path, exporter: Exporter | None = None) -> Path:
    """Writes the file, atomically, once ``onnx.checker`` takes it and its graph agrees with the model.

    exporter: ``dynamo``, torch's present one, for transformers, or ``torchscript``, its older one, for GRUs too, for
    torch before 2.9 and for runtimes before 1.23; None: which fits. Raises DFPlannerError if that cannot be.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 (told before the work)
    except ImportError as e:
        raise DFPlannerError(f"export needs {e.name}; run pip install 'dfplanner[onnx]'") from e
    model = copy.deepcopy(checkpoint.model).cpu().eval().requires_grad_(False)
    gru = checkpoint.model_config.kind == "gru"
    if gru and exporter == "dynamo":
        raise DFPlannerError("the exporter 'dynamo' unrolls a GRU over a fixed number of tokens; take 'torchscript'")
    how = exporter or ("torchscript" if gru or _version(torch.__version__) < (2, 9) else "dynamo")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "graph.onnx"
        _trace(model, checkpoint.spec, raw, how)
        graph = onnx.load(str(raw))
    _forget_sources(graph)
    del graph.metadata_props[:]
    graph.metadata_props.add(key=KEY, value=metadata(checkpoint))
    onnx.checker.check_model(graph, full_check=True)

    def write(part: str) -> None:
        onnx.save(graph, part)
        try:
            off = deviation(model, OnnxCheckpoint.load(part).model, checkpoint.spec, checkpoint.schedule.levels)
        except Exception as e:  # the runtime's errors share no class of their own
            raise DFPlannerError(f"the exported graph does not run ({_line(e)}); take another exporter") from e
        if not off <= TOLERANCE:
            raise DFPlannerError(
                f"the exported graph is {off:.1e} away from the model; check its weights, or take another exporter"
            )

    atomic_write(path, write)
    return Path(path)


def metadata(checkpoint: Checkpoint) -> str:
    """All but the network, as ``dfplanner.runtime.file.header`` has it; the schedule is a table of its rates."""
    tokenizer, inverse, schedule = checkpoint.tokenizer.stats(), checkpoint.inverse, checkpoint.schedule
    alpha, sigma = schedule.rates(torch.arange(schedule.levels + 1))
    tensors: dict[str, Tensor] = {"schedule.alpha": alpha, "schedule.sigma": sigma}
    tensors |= {f"tokens.{name}": t for name, t in tokenizer.items()}
    tensors |= {f"inverse.{name}": t for name, t in inverse.state_dict().items()} if inverse else {}
    return header(
        checkpoint.spec,
        schedule.levels,
        checkpoint.prediction,
        cast(Denoiser, checkpoint.model).causal,
        {name: t.detach().cpu().numpy() for name, t in tensors.items()},
        schedule=asdict(schedule),
        model=asdict(checkpoint.model_config),
        facts=checkpoint.facts,
    )


def deviation(model: nn.Module, network: Network, spec: TokenSpec, levels: int) -> float:
    """The largest difference between a model and its graph, over batches and lengths to both ends."""
    rng, off = np.random.default_rng(0), []
    for b, t in ((1, 1), (1, spec.horizon + 1), (3, 2), (5, spec.horizon)):
        x = rng.standard_normal((b, t, spec.width), dtype=np.float32)
        k = rng.integers(0, levels + 1, (b, t, spec.parts))
        with torch.no_grad():
            expected = model(torch.from_numpy(x), torch.from_numpy(k)).numpy()
        off.append(np.abs(network(x, k) - expected).max())
    return float(np.max(off))  # NaN if one is


def _trace(model: nn.Module, spec: TokenSpec, file: Path, how: Exporter) -> None:
    """The bare graph, by one of torch's exporters; raises DFPlannerError if it cannot."""
    longest = spec.horizon + 1
    example = torch.zeros(2, min(3, longest), spec.width), torch.zeros(2, min(3, longest), spec.parts, dtype=torch.long)
    names: dict[str, Any] = {"input_names": ["tokens", "levels"], "output_names": ["prediction"]}
    if how == "dynamo":
        axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=longest)}
        more: dict[str, Any] = {
            "dynamo": True,
            "dynamic_shapes": (axes, axes),
            "external_data": False,
            "verbose": False,
        }
    else:
        free = {0: "batch", 1: "length"}
        more = {"dynamic_axes": dict.fromkeys(("tokens", "levels", "prediction"), free)}
        if "dynamo" in inspect.signature(torch.onnx.export).parameters:
            more["dynamo"] = False
    try:
        with _quiet():
            torch.onnx.export(model, example, str(file), opset_version=OPSET[how], **names, **more)
    except Exception as e:  # the exporters raise a zoo of errors; all mean the same to the user
        raise DFPlannerError(f"torch {torch.__version__} could not export this model by {how!r} ({_line(e)})") from e


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say: of operators of packages that are not here, of their own age, of GRUs' batches
    (which the comparison with the model settles), and whole graphs when they fail.
    """
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _forget_sources(graph: Any) -> None:
    """Removes where in which file every operator came from: the same model gives the same file anywhere."""
    for part in (graph.graph, *graph.functions):
        for thing in (part, *part.node, *part.value_info, *getattr(part, "input", ()), *getattr(part, "output", ())):
            if hasattr(thing, "metadata_props"):
                del thing.metadata_props[:]
                thing.doc_string = ""


def _line(e: Exception) -> str:
    """An error's first line, without what the exporters draw around it."""
    text = str(e).strip()
    return text.splitlines()[0].strip() if text else type(e).__name__


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
