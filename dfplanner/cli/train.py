"""``dfplanner train CONFIG``: train a model, and keep the one that scores best."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from tyro.conf import Positional

from dfplanner.cli.common import File, Name, parse, use_device, writable
from dfplanner.configs import CONFIGS, load_config
from dfplanner.data import Episodes, load_episodes
from dfplanner.train import TrainConfig, train
from dfplanner.trainlog import read_state
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class Train:
    """Train a model: collects the environment's data unless --data names some, scores the model in closed loop (24
    episodes that no benchmark runs) if it knows the environment, keeps the best, and goes on after an interruption with
    --resume.

    The defaults below are those of the configuration named (dfplanner train NAME --help), or of maze2d-umaze.
    """

    config: Positional[Name]
    """A named configuration, or a JSON file with the fields below."""
    settings: TrainConfig
    resume: bool = False
    """Go on where the run in --out stopped."""
    out: File = ""
    """Folder for the checkpoint, the metrics and the state to resume from; by default runs/NAME."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..."""
    threads: int = 1
    """Threads torch takes; small models are fastest with one."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe; pays on GPUs."""
    compile: bool = False
    """Compile the model first; needs a C++ compiler."""
    tensorboard: bool = False
    """Write TensorBoard's events too."""


def run(args: Sequence[str]) -> None:
    """Train, and say where the checkpoint is."""
    a = _arguments(args)
    config, rank = a.settings, int(os.environ.get("RANK", 0))
    device = use_device(a.device, a.threads)
    out = Path(a.out or f"runs/{config.name}")
    writable(out / "metrics.jsonl")
    if a.resume:
        read_state(config, out)  # what cannot be resumed is told before the data is made
    try:
        episodes = _episodes(config, progress=rank == 0)
        facts = {"data": {**episodes.meta, "steps": episodes.steps}, "torch": torch.__version__, "device": device}
        if rank == 0 and not a.resume:
            (out / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")
        best = train(
            config,
            episodes,
            out,
            resume=a.resume,
            device=device,
            bf16=a.bf16,
            compile=a.compile,
            tensorboard=a.tensorboard,
            evaluate=_validation(config, episodes),
            facts=facts,
        )
    except KeyboardInterrupt as e:
        again = shlex.join(["dfplanner", "train", *args, *([] if a.resume else ["--resume"])])
        raise KeyboardInterrupt(
            f"{str(e).split(';')[0] or 'stopped before training began'}; go on with: {again}"
        ) from e
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if rank == 0:
        score = best.facts["score"]
        said = "not scored" if score is None else f"score {score:.1f} in validation, at step {best.facts['step']}"
        print(f"wrote {out / config.name}.safetensors ({said})")


def _arguments(args: Sequence[str]) -> Train:
    """Read twice: first to learn which configuration is meant, then with its values as the defaults."""
    config = CONFIGS["maze2d-umaze"]
    if asked := [word for word in args if word not in ("-h", "--help")] or args:
        config = load_config(parse(Train, "train", asked, Train(tyro.MISSING, config)).config)
    return parse(Train, "train", args, Train(tyro.MISSING, config))


def _episodes(config: TrainConfig, progress: bool) -> Episodes:
    """The data that the configuration names, or its environment's own, in the frame of its models."""
    from dfplanner_envs.collect import collect_for, collectable, in_model_frame

    if config.data:
        episodes = in_model_frame(config.env, load_episodes(config.data))
        if progress and config.stay and episodes.arrival is None and episodes.meta.get("stay") is False:
            print(f"{config.data} does not rest at its goals; --no-stay keeps windows inside episodes", file=sys.stderr)
        return episodes
    from tqdm import tqdm

    collectable(config.env)  # an unknown one is told before there is a bar
    with tqdm(total=config.data_steps, unit="step", unit_scale=True, desc="collect", disable=not progress) as bar:
        return collect_for(config.env, config.data_steps, config.seed, stay=config.stay, progress=bar.update)


def _validation(config: TrainConfig, episodes: Episodes) -> Callable[[Any], dict[str, float]] | None:
    """The closed-loop score; None, and said so, where the environment is none that we know or cannot be made here."""
    from dfplanner.bench.tasks import task_of
    from dfplanner.bench.validate import arm_validator, validator
    from dfplanner_envs.wrappers import is_arm

    if is_arm(config.env):
        return arm_validator()
    try:
        task = task_of(config.env)
    except DFPlannerError:
        return None
    found, expected = (episodes.observations.shape[1], episodes.actions.shape[1]), (task.obs_dim, 2)
    if found != expected:
        raise DFPlannerError(
            f"the data has observations and actions of {found} numbers, {config.env} of {expected}; "
            "name the data's own environment with --env, and the model is not scored"
        )
    try:
        return validator(config.env)
    except DFPlannerError as e:
        print(f"the model is not scored as it trains: {e}", file=sys.stderr)
        return None
