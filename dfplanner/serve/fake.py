"""Servers to test against: one that follows a script, and the real one around a planner whose plans are known.

The second as a process: ``python -m dfplanner.serve.fake '{"port": 0}'``.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from dfplanner.serve.protocol import BUSY, CLOSE_BUSY, CLOSE_ERROR, packb, unpackb

if TYPE_CHECKING:
    from dfplanner.serve.engine import Engine, PlannerLike
    from dfplanner.serve.server import PlanServer

Step = Callable[[ServerConnection, dict[str, Any]], None]
"""What it does with a request."""


def answer(connection: ServerConnection, request: dict[str, Any]) -> None:
    """A plan that says whose it is: the observation's first number in every action; states are the observation."""
    states = np.tile(np.asarray(request["observation"]), (3, 1))
    actions = np.full((3, 2), float(states[0, 0]))
    connection.send(packb({"actions": actions, "states": states, "server_timing": {"infer_ms": 1.5}}))


def refuse(connection: ServerConnection, request: dict[str, Any]) -> None:
    """An error's text, in two lines."""
    connection.send("the goal is not finite;\nsend numbers")
    connection.close(CLOSE_ERROR)


def busy(connection: ServerConnection, request: dict[str, Any]) -> None:
    """A busy answer."""
    connection.send(f"{BUSY}8 requests wait")
    connection.close(CLOSE_BUSY)


def die(connection: ServerConnection, request: dict[str, Any]) -> None:
    """No answer: the connection breaks as if the process had been killed."""
    connection.socket.shutdown(socket.SHUT_RDWR)


class FakeServer:
    """Does the script's steps, one for each request whatever connection it comes on, and then ``answer`` for ever.

    ``greet`` is called with each connection and its number (from 1) in place of the metadata. ``requests`` and
    ``connections`` say what came. ``stop`` sets ``over``, for steps to wait for; ``start`` then takes the same port.
    """

    metadata = {"protocol": "fake", "dt_s": 0.01}

    def __init__(self, *script: Step, greet: Callable[[ServerConnection, int], None] | None = None) -> None:
        self.script, self.greet = list(script), greet
        self.requests: list[dict[str, Any]] = []
        self.connections, self.port = 0, 0
        self.over = threading.Event()
        self._server: Server | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, at first on any free port."""
        self.over.clear()
        self._server = serve(self._handle, "127.0.0.1", self.port, compression=None, close_timeout=0.5, max_size=None)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Ends, as often as one likes."""
        self.over.set()
        if self._server:
            self._server.shutdown()
        self._server = None

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handle(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            if self.greet:
                self.greet(connection, self.connections)
            else:
                connection.send(packb(self.metadata))
            while True:
                request = unpackb(cast(bytes, connection.recv()), max_bytes=1 << 30)
                self.requests.append(request)
                (self.script.pop(0) if self.script else answer)(connection, request)
        except (ConnectionClosed, OSError):
            pass


def circle_engine() -> Engine:
    """The real planner in the world of ``dfplanner.testing.Circle``, whose plans are known exactly; needs torch."""
    import torch

    from dfplanner.planner import Planner
    from dfplanner.serve.engine import Engine
    from dfplanner.serve.objectives import torch_objective
    from dfplanner.settings import PlannerSettings
    from dfplanner.testing import Circle

    torch.set_num_threads(1)
    planner = Planner(Circle().checkpoint(), PlannerSettings(action_chunks=2))
    return Engine(cast("PlannerLike", planner), torch_objective, lambda seed: torch.Generator().manual_seed(seed))


def main(options: str) -> None:
    """Serves it in this process; options: a JSON object of ServeConfig's fields."""
    from dfplanner.serve.server import ServeConfig, serve_forever

    def ready(server: PlanServer) -> None:
        print(f"listening on {server.url}", flush=True)

    serve_forever(circle_engine(), ServeConfig(**json.loads(options)), ready)


if __name__ == "__main__":
    main(sys.argv[1])
