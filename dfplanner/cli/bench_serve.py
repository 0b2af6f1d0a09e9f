"""``dfplanner bench serve``: a server under many clients: latency, throughput, batching, whose answers they are."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from dataclasses import dataclass

from dfplanner.cli.common import File, Name, parse, writable
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class BenchServe:
    """Start servers, ask them by many clients at once, check that every reply is its request's, print the latencies."""

    checkpoint: Name = "maze2d-umaze"
    """A model for a maze: its bundled name, a file or a run's folder."""
    url: Name = ""
    """ws://HOST:PORT of a server that runs already, to ask instead of starting some."""
    clients: int = 64
    """Clients that ask at the same time."""
    requests: int = 2000
    """Requests to each server, all clients' together."""
    seed: int = 0
    """Of the starts and goals."""
    threads: int = 1
    """Threads torch takes in the server."""
    json: File = ""
    """File for all numbers."""


def run(args: Sequence[str]) -> None:
    """Run it; raises DFPlannerError if a reply was not its request's."""
    a = parse(BenchServe, "bench serve", args)
    path = writable(a.json)
    try:
        from dfplanner.bench.serve import run_bench
    except ImportError as e:
        raise DFPlannerError(f"the server needs {e.name}; run pip install 'dfplanner[serve]'") from e
    report = run_bench(a.checkpoint, a.url, a.clients, a.requests, a.seed, a.threads, print)
    print(report.text())
    if path:
        path.write_text(json_format.dumps(report.to_dict(), indent=1) + "\n")
        print(f"wrote {path}")
    report.check()
