"""One ONNX file is a planner: the network as graph, all else in its metadata; read here without torch or onnx."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.runtime.codec import Codec, Inverse
from dfplanner.types import Array, DFPlannerError, TokenSpec

FORMAT = "dfplanner-onnx/1"
KEY = "dfplanner"
"""The metadata's entry, one JSON object; ``header`` says what is in it."""


def header(
    spec: TokenSpec, levels: int, prediction: str, causal: bool, tensors: Mapping[str, Array], **more: Any
) -> str:
    """The metadata: the format, what a planner needs of a checkpoint, float32 ``tensors`` bit for bit, and ``more``."""
    packed = {
        name: {"shape": list(t.shape), "float32": base64.b64encode(np.asarray(t, "<f4").tobytes()).decode()}
        for name, t in tensors.items()
    }
    known = {"format": FORMAT, "spec": spec.to_dict(), "levels": levels, "prediction": prediction, "causal": causal}
    return json.dumps({**known, **more, "tensors": packed})


@dataclass(frozen=True)
class Rates:
    """The schedule as a table: signal and noise rates (K+1,) of levels 0..K."""

    alpha: Array
    sigma: Array

    @property
    def levels(self) -> int:
        """K, pure noise."""
        return len(self.alpha) - 1

    def rates(self, k: NDArray[np.int64]) -> tuple[Array, Array]:
        """(α_k, σ_k), shaped like k."""
        return self.alpha[k], self.sigma[k]


@dataclass(frozen=True)
class Network:
    """The graph behind the call of a model: tokens (B, T, C) at levels (B, T, P) -> its prediction (B, T, C)."""

    session: Any
    causal: bool

    def __call__(self, x: Array, levels: NDArray[np.int64]) -> Array:
        return self.session.run(None, {"tokens": np.ascontiguousarray(x), "levels": np.ascontiguousarray(levels)})[0]


@dataclass(frozen=True)
class OnnxCheckpoint:
    """What ``dfplanner.checkpoint.Checkpoint`` is to torch."""

    spec: TokenSpec
    schedule: Rates
    prediction: str
    model: Network
    tokenizer: Codec
    inverse: Inverse | None
    facts: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> OnnxCheckpoint:
        """From a file of ``dfplanner export``, for so many threads; raises DFPlannerError if it is none."""
        session = _session(path, threads)
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise DFPlannerError(f"{path} is an ONNX model but no planner; make one with `dfplanner export`")
        try:
            h = json.loads(text)
            if h["format"] != FORMAT:
                raise DFPlannerError(
                    f"{path} has the format {h['format']!r}, this version reads {FORMAT!r}; export anew"
                )
            spec, tensors = TokenSpec.from_dict(h["spec"]), {k: _unpacked(t) for k, t in h["tensors"].items()}
            rates = Rates(tensors["schedule.alpha"], tensors["schedule.sigma"])
            if rates.levels != h["levels"] or h["prediction"] not in ("v", "x0", "eps"):
                raise ValueError(f"{rates.levels} levels, prediction {h['prediction']!r}")
            codec = Codec(spec, {k[7:]: t for k, t in tensors.items() if k.startswith("tokens.")})
            weights = (
                [tensors[f"inverse.net.{i}.{w}"] for i in (0, 2, 4) for w in ("weight", "bias")]
                if ("inverse.net.0.weight" in tensors)
                else []
            )
            inverse = Inverse(weights) if weights else None
            network = Network(session, bool(h["causal"]))
            return cls(spec, rates, h["prediction"], network, codec, inverse, h["facts"])
        except DFPlannerError:
            raise
        except (KeyError, TypeError, ValueError) as e:
            raise DFPlannerError(f"{path} does not hold what its metadata promises ({e}); export it anew") from e


def _unpacked(t: Mapping[str, Any]) -> Array:
    return np.frombuffer(base64.b64decode(t["float32"]), "<f4").reshape(t["shape"]).astype(np.float32)


def _session(path: str | Path, threads: int) -> Any:
    if threads < 1:
        raise DFPlannerError(f"{threads} threads came; give at least 1")
    if not Path(path).is_file():
        raise DFPlannerError(
            f"there is no file {path}; the ONNX runtime takes one that `dfplanner export NAME --onnx FILE` wrote"
        )
    try:
        import onnxruntime as ort
    except ImportError as e:
        raise DFPlannerError("planning with ONNX needs onnxruntime; run pip install 'dfplanner[onnx]'") from e
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # numbers near zero slow a CPU down by a factor and change nothing
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its errors share no class of their own
        raise DFPlannerError(
            f"{path} cannot be used by ONNX Runtime {ort.__version__} ({str(e).splitlines()[0]}); expected a file of "
            "`dfplanner export`"
        ) from e
