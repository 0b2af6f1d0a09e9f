"""What stands beside the training loop: its metrics, how it is asked to stop, and what it resumes from."""

from __future__ import annotations

import json
import math
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dfplanner.checkpoint import atomic_write, load_tensors
from dfplanner.types import DFPlannerError


class StopSignal:
    """Within it SIGINT and SIGTERM only ask, so that a run can save itself before it ends; a second one kills it."""

    def __init__(self, shared: bool = False, device: str = "cpu") -> None:
        self.asked, self.decided, self.shared, self.device = False, False, shared, device
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere the caller owns the signals
            self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)
        self._before = {}

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        self.__exit__()

    def decide(self) -> bool:
        """Whether to stop after this step: what one rank was asked, all of them do."""
        self.decided = self.asked
        if self.shared:
            flag = torch.tensor(float(self.asked), device=self.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self.decided = bool(flag)
        return self.decided


class Log:
    """Metrics, a JSON object a line, and TensorBoard's events if asked for."""

    def __init__(self, out: Path, tensorboard: bool) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "metrics.jsonl"
        self.board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter  # pyright: ignore[reportPrivateImportUsage]
            except ImportError as e:
                raise DFPlannerError('TensorBoard is not installed; pip install "dfplanner[tensorboard]"') from e
            self.board = SummaryWriter(str(out))

    def cut(self, step: int) -> None:
        """Forgets what was logged after a step: it will be computed again."""
        if self.path.is_file():
            whole = [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
            text = "".join(line for line in whole if json.loads(line)["step"] <= step)

            def write(part: str) -> None:
                Path(part).write_text(text)

            atomic_write(self.path, write)

    def write(self, row: dict[str, float]) -> None:
        with self.path.open("a") as f:
            f.write(json.dumps(row) + "\n")
        if self.board:
            for k, v in row.items():
                if k != "step":
                    self.board.add_scalar(k, v, row["step"])


def read_state(config: Any, out: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and header a run left in ``out``; None: killed before the first save, so that it begins again.

    Raises DFPlannerError on a damaged file and on another configuration's.
    """
    if not (out / "state.safetensors").is_file():
        return None
    tensors, header = load_tensors(out / "state.safetensors")
    then, now = header.get("config", {}), json.loads(json.dumps(asdict(config)))
    then.setdefault("init", "")
    changed = [k for k in now if then.get(k) != now[k] and k not in ("eval_every", "save_every")]
    if now["steps"] > then.get("steps", math.inf):
        changed.remove("steps")  # a run may be lengthened: the learning rate is that of the longer one from here on
    if changed:
        raise DFPlannerError(
            f"{out}/state.safetensors was trained with another {', '.join(changed)}; "
            "resume with the same configuration, or choose another --out"
        )
    return tensors, header
