"""Training: a loop to be read from top to bottom. Resumable at any step, to the same result."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from dfplanner.checkpoint import Checkpoint, save_tensors
from dfplanner.data.episodes import Episodes
from dfplanner.data.pace import fit_pace
from dfplanner.data.tokens import Tokenizer
from dfplanner.data.windows import Windows
from dfplanner.levels import Recipe, training_levels
from dfplanner.models.build import ModelConfig, build_model
from dfplanner.models.inverse import InverseDynamics, fit_inverse
from dfplanner.optim import build_optimizers, ema_update, lr_factor
from dfplanner.schedules import Kind, Prediction, Schedule, Weighting, loss_factor, target
from dfplanner.trainlog import Log, StopSignal, read_state
from dfplanner.types import DFPlannerError, TokenSpec


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's result."""

    name: str
    """Checkpoint's name."""
    env: str
    """Environment whose data is collected and on which the model is scored."""
    chunk: int
    """Environment steps a token covers."""
    horizon: int
    """Tokens after the goal token."""
    steps: int
    """Optimiser steps; the learning rate falls to zero over these. A resumed run may be given more."""
    data: str = ""
    """HDF5 file or Minari id; empty: collect it."""
    init: str = ""
    """Checkpoint (name or file) whose weights and tokenizer the run begins with; empty: fresh ones."""
    data_steps: int = 1_000_000
    stay: bool = True
    """Whether collected episodes stay at their goal."""
    hindsight: float = 0.0
    """Share of windows whose goal is a position reached inside them."""
    after_arrival: int = 30
    """Where episodes stay: steps after arrival at which a window may still begin."""
    at_start: float = 0.1
    """The same: share of windows that begin where their episode does."""
    shortest: float = 0.0
    """Share of windows whose goal is anywhere that their first tokens are on a shortest way to, by all the data."""
    place: float = 1.0
    """Edge of the places those ways are made of: a fraction of a corridor's width."""
    act_code: int = 12
    seed: int = 0
    recipe: Recipe = "diffusion-forcing"
    goal_dropout: float = 0.3
    model: ModelConfig = field(default_factory=ModelConfig)
    schedule: Kind = "cosine"
    levels: int = 1000
    prediction: Prediction = "v"
    weighting: Weighting = "v"
    batch: int = 128
    lr: float = 1e-3
    muon_lr: float = 0.02
    weight_decay: float = 0.0
    flat: float = 0.5
    """Share of the run at the full learning rate, before it falls."""
    ema: float = 0.999
    clip: float = 1.0
    eval_every: int = 2000
    """Steps between validations; 0: only at the end."""
    save_every: int = 250
    """Steps between saves of the state that a run resumes from."""

    def __post_init__(self) -> None:
        at_least = {"chunk": 1, "horizon": 2, "steps": 1, "data_steps": 1, "act_code": 2, "seed": 0, "levels": 1}
        for name, low in (at_least | {"batch": 1, "eval_every": 0, "save_every": 1, "after_arrival": 0}).items():
            if getattr(self, name) < low:
                raise DFPlannerError(f"{name} is {getattr(self, name)}; training needs at least {low}")
        if not self.name or "/" in self.name:
            raise DFPlannerError(f"a run's name becomes a file's name, and {self.name!r} cannot; choose another")


@dataclass
class Run:
    """A run's moving parts: what a resumable state must hold."""

    model: nn.Module
    average: nn.Module
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    best: float | None = None
    """The best score so far; None where nothing was scored."""

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the run by name."""
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        out |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, opt in enumerate(self.optimizers):
            for p, entry in opt.state_dict()["state"].items():
                out |= {f"opt.{i}.{p}.{k}": torch.as_tensor(v) for k, v in entry.items()}
        return out

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``state``."""
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        for i, opt in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for k, v in tensors.items():
                if k.startswith(f"opt.{i}."):
                    p, name = k.split(".", 3)[2:]
                    state.setdefault(int(p), {})[name] = v
            opt.load_state_dict({"state": state, "param_groups": opt.state_dict()["param_groups"]})


@dataclass
class Setup:
    """What a run is made of before its first step; the same configuration and data give the same."""

    spec: TokenSpec
    schedule: Schedule
    windows: Windows
    tokenizer: Tokenizer
    inverse: InverseDynamics
    run: Run
    parts: Tensor

    def batch(self, config: TrainConfig, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens (n, T, C), their levels and what counts in the loss (n, T, P), and noise (n, T, C)."""
        device = self.parts.device
        states, chunks, goals, pace, led = self.windows.draw(n, rng)
        given = (x.to(device) for x in (states, chunks, goals, pace.nan_to_num()))
        tokens, known = self.tokenizer.encode(*given), pace.isfinite().all(1).numpy()
        levels, counted = training_levels(
            n, config.horizon, config.levels, config.recipe, rng, config.goal_dropout, known, led.numpy()
        )
        noise = torch.from_numpy(rng.standard_normal(tuple(tokens.shape), np.float32))
        return tokens, torch.from_numpy(levels).to(device), torch.from_numpy(counted).to(device), noise.to(device)

    def checkpoint(self, config: TrainConfig, facts: dict[str, Any]) -> Checkpoint:
        """The averaged weights, with how they came about."""
        said = {"config": asdict(config), "step": self.run.step, "score": self.run.best} | facts
        return Checkpoint(
            self.spec,
            self.schedule,
            config.prediction,
            config.model,
            self.run.average,
            self.tokenizer,
            self.inverse,
            said,
        )


def prepare(config: TrainConfig, episodes: Episodes, device: str) -> Setup:
    """Fits what is fitted before training (tokenizer, pace, inverse dynamics), and makes the fresh network."""
    obs_dim, act_dim = episodes.observations.shape[1], episodes.actions.shape[1]
    dt_s = float(episodes.meta.get("dt_s", 0.01))
    pos = tuple(episodes.meta.get("pos", (0, 1)))
    code = min(config.act_code, config.chunk * act_dim)  # a chunk of few numbers is its own code
    spec = TokenSpec(obs_dim, act_dim, config.chunk, code, config.horizon, dt_s, pos)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config.model, spec, config.levels)
    pace = fit_pace(episodes, spec.pos, config.seed) if config.stay else None
    windows = Windows(
        episodes,
        spec,
        config.after_arrival,
        config.at_start,
        hindsight=config.hindsight,
        shortest=config.shortest,
        place=config.place,
        stay=config.stay,
        pace=pace,
    )
    if config.init:
        tokenizer = _begin_with(Checkpoint.load(config.init), model, spec, config)
    else:
        tokenizer = windows.fit_tokenizer(np.random.default_rng([config.seed, 2**31]))
        cast(Any, model).embed.pos_scale.copy_(tokenizer.obs_std[list(spec.pos)])
    inverse = fit_inverse(windows, tokenizer, config.seed).to(device)
    model.to(device)
    average = copy.deepcopy(model).requires_grad_(False)
    run = Run(model, average, build_optimizers(model, config.lr, config.muon_lr, config.weight_decay))
    parts = torch.from_numpy(tokenizer.part_of).to(device)
    return Setup(spec, Schedule(config.schedule, config.levels), windows, tokenizer.to(device), inverse, run, parts)


def _begin_with(given: Checkpoint, model: nn.Module, spec: TokenSpec, config: TrainConfig) -> Tokenizer:
    """Puts a checkpoint's weights into the model, and returns its tokenizer; raises on another shape."""
    ours = {**spec.to_dict(), "model": config.model, "schedule": (config.schedule, config.levels)}
    theirs = {
        **given.spec.to_dict(),
        "model": given.model_config,
        "schedule": (given.schedule.kind, given.schedule.levels),
    }
    ours["prediction"], theirs["prediction"] = config.prediction, given.prediction
    if differ := [f"{k} {theirs[k]} instead of {ours[k]}" for k in ours if ours[k] != theirs[k] and k != "horizon"]:
        raise DFPlannerError(
            f"{config.init} cannot begin this run: it has {'; '.join(differ)}; match them, or drop init"
        )
    if given.spec.horizon < spec.horizon:
        raise DFPlannerError(
            f"{config.init} knows {given.spec.horizon} tokens, this run has {spec.horizon}; take fewer"
        )
    state = given.model.state_dict()
    state["embed.place"] = state["embed.place"][: spec.horizon + 1]
    model.load_state_dict(state)
    return given.tokenizer


def ranks(config: TrainConfig, device: str) -> tuple[int, int, str]:
    """This process's rank, how many there are (torchrun's variables), and the device it takes."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if config.batch % world:
        raise DFPlannerError(f"a batch of {config.batch} cannot be shared among {world} ranks; choose a multiple")
    if device == "cuda" and world > 1:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return rank, world, device


def loss_on(
    model: nn.Module,
    tokens: Tensor,
    levels: Tensor,
    mask: Tensor,
    noise: Tensor,
    schedule: Schedule,
    config: TrainConfig,
    parts: Tensor,
) -> Tensor:
    """Weighted denoising error of tokens (B, T, C) at levels (B, T, P), over the parts that the mask (B, T, P) has."""
    k = levels[..., parts]
    alpha, sigma = schedule.rates(k, tokens.dtype)
    pred = model(alpha * tokens + sigma * noise, levels)
    error = (pred.float() - target(tokens, noise, alpha, sigma, config.prediction)) ** 2
    weight = loss_factor(schedule, k, config.prediction, config.weighting) * mask[..., parts]
    return (weight * error).sum() / mask[..., parts].sum().clamp(min=1)


def train(
    config: TrainConfig,
    episodes: Episodes,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    bf16: bool = False,
    compile: bool = False,
    tensorboard: bool = False,
    evaluate: Callable[[Checkpoint], dict[str, float]] | None = None,
    progress: bool = True,
    facts: dict[str, Any] | None = None,
) -> Checkpoint:
    """Trains a model and returns the best one; it lies in ``out/{config.name}.safetensors``, beside ``metrics.jsonl``.

    ``evaluate`` scores the averaged weights (key "score", higher is better). Under torchrun the batch is shared among
    ranks. Killed at any moment, ``resume=True`` goes on from ``out/state.safetensors``.
    """
    rank, world, device = ranks(config, device)
    setup = prepare(config, episodes, device)
    # Not before: what an optimiser imports would keep the group, and its threads abort now and then as Python ends.
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    run, schedule, parts = setup.run, setup.schedule, setup.parts
    model, average = run.model, run.average
    log = Log(out, tensorboard) if rank == 0 else None
    if resume and (state := read_state(config, out)) is not None:
        run.load(state[0])
        run.step, best = state[1]["step"], state[1]["best"]
        run.best = best if best is not None and math.isfinite(best) else None
    if log:
        log.cut(run.step)
    net: nn.Module = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    net = cast(nn.Module, torch.compile(net)) if compile else net
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()
    base_lr = [[g["lr"] for g in o.param_groups] for o in run.optimizers]
    began, mean_loss, count = time.monotonic(), 0.0, 0
    best_file = out / f"{config.name}.safetensors"

    def checkpoint() -> Checkpoint:
        return setup.checkpoint(config, facts or {})

    def score() -> None:
        if log and evaluate:
            scores = evaluate(checkpoint())
            log.write({"step": run.step, **scores})
            if run.best is None or scores["score"] >= run.best:
                run.best = scores["score"]
                checkpoint().save(best_file)

    shown = {"total": config.steps, "initial": run.step, "desc": config.name, "unit": "step", "mininterval": 2}
    with StopSignal(world > 1, device) as stop, tqdm(disable=not progress or rank > 0, **shown) as bar:
        while run.step < config.steps and not stop.decided:
            rng = np.random.default_rng([config.seed, run.step, rank])  # randomness depends on the step's number alone
            tokens, k, counted, noise = setup.batch(config, config.batch // world, rng)
            with autocast:
                loss = loss_on(net, tokens, k, counted, noise, schedule, config, parts)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            factor = lr_factor(run.step, config.steps, flat=config.flat)
            for opt, lrs in zip(run.optimizers, base_lr, strict=True):
                for group, lr in zip(opt.param_groups, lrs, strict=True):
                    group["lr"] = lr * factor
                opt.step()
                opt.zero_grad(set_to_none=True)
            ema_update(average, model, config.ema, run.step)
            run.step += 1
            mean_loss, count = mean_loss + loss.item(), count + 1
            bar.update()
            last = stop.decide() or run.step == config.steps
            if run.step % 50 == 0 or last:
                mean_loss /= count
                if not math.isfinite(mean_loss):
                    raise DFPlannerError(f"the loss is {mean_loss} at step {run.step}; lower the learning rates")
                if log:
                    rate = count / (time.monotonic() - began)
                    log.write({"step": run.step, "loss": mean_loss, "lr_factor": factor, "steps_per_s": rate})
                bar.set_postfix_str(f"loss {mean_loss:.4f}" + ("" if run.best is None else f", best {run.best:.1f}"))
                began, mean_loss, count = time.monotonic(), 0.0, 0
            due = run.step == config.steps or (config.eval_every > 0 and run.step % config.eval_every == 0)
            if due:
                score()
                began = time.monotonic()
            if rank == 0 and (run.step % config.save_every == 0 or last):
                header = {"step": run.step, "best": run.best, "config": asdict(config)}
                save_tensors(out / "state.safetensors", run.state(), header)
    if run.step < config.steps:
        raise KeyboardInterrupt(f"stopped at step {run.step} of {config.steps}; go on with --resume")
    if run.best is None:
        score()  # a finished run that was never scored, resumed to be so
    if rank == 0 and run.best is None:
        checkpoint().save(best_file)
    return Checkpoint.load(best_file, device) if rank == 0 else checkpoint()
