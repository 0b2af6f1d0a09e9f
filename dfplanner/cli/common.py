"""What commands share: reading their arguments, points, devices, and outputs known to be writable before the work."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import tyro
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError

T = TypeVar("T")
File = Annotated[str, tyro.conf.arg(metavar="FILE")]
Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
Env = Annotated[str, tyro.conf.arg(metavar="ENV")]


def parse(kind: type[T], command: str, args: Sequence[str], default: T | None = None) -> T:
    """The arguments as a ``kind`` (a dataclass); a wrong one is a DFPlannerError, --help prints and exits."""
    start: Any = tyro.MISSING_NONPROP if default is None else default
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            flat = (tyro.conf.OmitArgPrefixes,)
            return tyro.cli(kind, prog=f"dfplanner {command}", args=args, default=start, config=flat)
    except SystemExit as e:
        if not e.code:
            raise
        raise DFPlannerError(f"{_sentence(said.getvalue())}; dfplanner {command} --help says what can be given") from e


def _sentence(box: str) -> str:
    """The message in tyro's box of text, without its frame, title and helptext."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        text = line.strip("│ ")  # where stdout is not UTF-8 there is no frame, and rules are hyphens
        if text.startswith(("Argument helptext", "For full helptext")):
            break
        if text.strip("╰╯─-"):
            parts[-1].append(text)
        else:
            parts.append([])
    sentences = [" ".join(part).rstrip(".") for part in parts if part]
    message = "; ".join(sentences) or "the arguments could not be read"
    return message[0].lower() + message[1:]


def writable(path: str | Path | None) -> Path | None:
    """The path, its folder made; raises DFPlannerError if a file cannot be written there. None and "" are None."""
    if path is None or str(path) == "":
        return None
    path = Path(path)
    if path.is_dir():
        raise DFPlannerError(f"{path} is a folder; give the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as e:
        raise DFPlannerError(f"{path} cannot be written ({e.strerror}); choose a path that can be") from e
    return path


def point(words: Sequence[str], what: str) -> NDArray[np.float64]:
    """A point (2,) from ``X,Y``, with or without spaces; raises DFPlannerError on anything but two finite numbers."""
    text = " ".join(words)
    try:
        numbers = np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (2,) or not np.isfinite(numbers).all():
        raise DFPlannerError(f"the {what} is two finite numbers X,Y in metres, such as 1,2.5, but {text!r} came")
    return numbers


def use_device(device: str, threads: int) -> str:
    """The device, if it is there; torch takes that many threads. Raises DFPlannerError."""
    import torch

    if threads < 1:
        raise DFPlannerError(f"{threads} threads came; give at least 1")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # numbers near zero slow a CPU down by a factor and change nothing
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        reason = str(e).splitlines()[0].rstrip(".")
        raise DFPlannerError(f"the device {device!r} cannot be used ({reason}); take --device cpu") from e
    return device
