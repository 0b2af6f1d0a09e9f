"""Checkpoints: safetensors with a JSON header, so that a model never travels without its TokenSpec and statistics."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dfplanner.data.tokens import Tokenizer
from dfplanner.models.build import ModelConfig, build_model
from dfplanner.models.inverse import InverseDynamics
from dfplanner.schedules import Prediction, Schedule
from dfplanner.types import DFPlannerError, TokenSpec

BUNDLED = Path(__file__).parent / "checkpoints"
_FORMAT = "dfplanner/1"


@dataclass
class Checkpoint:
    """A trained model with everything needed to use it; ``facts`` says how it was trained and what it scored."""

    spec: TokenSpec
    schedule: Schedule
    prediction: Prediction
    model_config: ModelConfig
    model: nn.Module
    tokenizer: Tokenizer
    inverse: InverseDynamics | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Writes atomically: the file is the old one or the new one, never half of either."""
        header = {
            "format": _FORMAT,
            "spec": self.spec.to_dict(),
            "schedule": asdict(self.schedule),
            "prediction": self.prediction,
            "model": asdict(self.model_config),
            "facts": self.facts,
        }
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"tokens.{k}": v for k, v in self.tokenizer.stats().items()}
        if self.inverse is not None:
            tensors |= {f"inverse.{k}": v for k, v in self.inverse.state_dict().items()}
        save_tensors(path, tensors, header)

    @classmethod
    def load(cls, name_or_path: str | Path, device: str = "cpu") -> Checkpoint:
        """By bundled name, file, run folder or hub id ``owner/repo``; raises DFPlannerError if it cannot be read."""
        path = resolve(name_or_path)
        tensors, header = load_tensors(path, device)
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise DFPlannerError(
                f"{path} is a safetensors file but not a dfplanner checkpoint; train one with `dfplanner train`"
            )
        try:
            spec = TokenSpec.from_dict(header["spec"])
            schedule = Schedule(**header["schedule"])
            config = ModelConfig(**header["model"])
            model = build_model(config, spec, schedule.levels)
            model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
            stats = {k[7:]: v.cpu().numpy() for k, v in tensors.items() if k.startswith("tokens.")}
            tokenizer = Tokenizer(spec, stats)
            weights = {k[8:]: v for k, v in tensors.items() if k.startswith("inverse.")}
            inverse = InverseDynamics(spec, len(weights["net.0.bias"])) if weights else None
            if inverse:
                inverse.load_state_dict(weights)
                inverse.requires_grad_(False).to(device)
            prediction, facts = header["prediction"], header["facts"]
        except (KeyError, TypeError, RuntimeError, ValueError) as e:
            raise DFPlannerError(
                f"{path} does not hold what its header promises ({e}); it is damaged or from another version"
            ) from e
        model.requires_grad_(False).eval()
        model, tokenizer = model.to(device), tokenizer.to(device)
        return cls(spec, schedule, prediction, config, model, tokenizer, inverse, facts)


def save_tensors(path: Path | str, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Tensors and a JSON header in one safetensors file, replaced atomically."""
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    atomic_write(path, lambda tmp: save_file(plain, tmp, metadata={"dfplanner": json.dumps(header)}))


def load_tensors(path: Path | str, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of ``save_tensors``; raises DFPlannerError on a missing or damaged file."""
    try:
        with safe_open(str(path), "pt", device=device) as f:
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (not a dict)
            return tensors, json.loads((f.metadata() or {}).get("dfplanner", "{}"))
    except FileNotFoundError as e:
        raise DFPlannerError(f"no such checkpoint file: {path}") from e
    except (SafetensorError, OSError, json.JSONDecodeError) as e:
        raise DFPlannerError(
            f"{path} cannot be read as safetensors ({e}); expected a file written by `dfplanner train`"
        ) from e


def atomic_write(path: Path | str, write: Callable[[str], None]) -> None:
    """Calls write(temporary path) in the target's folder, then moves the result into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        write(tmp)
        os.chmod(tmp, 0o644)
        os.replace(tmp, path)
    finally:
        Path(tmp).unlink(missing_ok=True)


def bundled() -> dict[str, Path]:
    """The checkpoints that ship with the package, by name."""
    return {p.stem: p for p in sorted(BUNDLED.glob("*.safetensors"))}


def resolve(name_or_path: str | Path) -> Path:
    """The file that a bundled name, a file, a run's folder or a hub id stands for."""
    name, known = str(name_or_path), bundled()
    if name in known:
        return known[name]
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        files = [
            p for p in sorted(Path(name).glob("*.safetensors")) if p.name != "state.safetensors" and p.name[0] != "."
        ]
        if len(files) != 1:
            raise DFPlannerError(f"the folder {name} holds {len(files)} checkpoints; give the path of one file")
        return files[0]
    if name.count("/") == 1 and not name.startswith((".", "/")) and not name.endswith(".safetensors"):
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(name, "model.safetensors"))
        except Exception as e:  # the hub's client raises a zoo of errors; all mean the same to the user
            raise DFPlannerError(
                f"{name!r} is neither a file nor a repository the hub would give ({type(e).__name__})"
            ) from e
    raise DFPlannerError(
        f"unknown checkpoint {name!r}; bundled: {', '.join(known) or 'none'}; "
        "or give a file, a run's folder or a hub id owner/repo"
    )


def describe(path: Path) -> dict[str, Any]:
    """The header alone, without building the model."""
    return load_tensors(path)[1]


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in a model."""
    return sum(p.numel() for p in model.parameters())


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models hold equal numbers."""
    sa, sb = a.state_dict(), b.state_dict()
    return sa.keys() == sb.keys() and all(torch.equal(sa[k], sb[k]) for k in sa)
