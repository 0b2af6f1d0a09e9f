"""``dfplanner serve``: a planner behind a WebSocket, in openpi's wire."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from dfplanner.cli.common import Name, parse, use_device
from dfplanner.settings import PlannerSettings
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class Serve:
    """Serve a checkpoint's plans to robots and simulations: openpi's WebSocket wire, GET /healthz, GET /metrics."""

    checkpoint: Name
    """A bundled model's name (see dfplanner checkpoints), a file, a run's folder, or a hub id; for onnx a file."""
    host: str = "127.0.0.1"
    """Address to listen at. There is no password: whoever reaches it can ask for plans."""
    port: int = 8000
    """0: a free one, which is printed."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx needs no torch; make its file with dfplanner export."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ... for torch."""
    threads: int = 1
    """Threads the runtime takes."""
    seed: int | None = None
    """Of the planner's noise; by default new ones each time."""
    horizon: int = 4
    """Tokens of a plan, the present one included."""
    action_chunks: int = 2
    """Chunks whose actions a reply holds."""
    steps: int = 2
    """Levels the observations fall through."""
    action_steps: int = 3
    """Levels the actions fall through, after the observations; 0: together with them."""
    scheme: str = "full-sequence"
    """How the noise falls: full-sequence, autoregressive, pyramid, trapezoid, rolling."""
    guidance: float = 1.0
    """Strength of objectives that guide."""
    max_connections: int = 128
    """Clients at a time; others are told that the server is busy."""
    max_queue: int = 128
    """Requests that may wait for the planner."""
    max_batch: int = 64
    """Requests planned in one call."""
    window_ms: float = 2.0
    """How long the first request of a batch waits for others."""
    max_bytes: int = 1 << 20
    """Bytes of a request."""
    ping_s: float = 20.0
    """Seconds between pings, and until a client that does not answer one is dropped."""
    send_timeout_s: float = 5.0
    """Seconds until a client that does not take its reply is dropped."""
    drain_s: float = 10.0
    """Seconds that requests under way get to finish at SIGTERM or Ctrl-C."""
    origins: tuple[str, ...] = ()
    """Web pages that may connect, such as https://example.org; programs always may."""


def run(args: Sequence[str]) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    a = parse(Serve, "serve", args)
    try:
        from dfplanner.serve.engine import make_planner
        from dfplanner.serve.server import PlanServer, ServeConfig, serve_forever, wire_log
    except ImportError as e:
        raise DFPlannerError(f"the server needs {e.name}; run pip install 'dfplanner[serve]'") from e
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    wire_log.setLevel(logging.CRITICAL)
    config = ServeConfig(**{f.name: getattr(a, f.name) for f in fields(ServeConfig)})
    settings = PlannerSettings(**{f.name: getattr(a, f.name) for f in fields(PlannerSettings) if hasattr(a, f.name)})
    device = use_device(a.device, a.threads) if a.runtime == "torch" else a.device
    engine = make_planner(a.checkpoint, a.runtime, settings=settings, device=device, threads=a.threads)

    def ready(server: PlanServer) -> None:
        print(f"listening on {server.url}", flush=True)

    serve_forever(engine, config, ready)
