"""A planner's server that is a fake: it follows a script, so that whoever depends on the real one can be tested."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from dfplanner.serve.protocol import BUSY, CLOSE_BUSY, CLOSE_ERROR, packb, unpackb

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
