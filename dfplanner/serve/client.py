"""The planner behind a socket: a client of ``dfplanner serve`` that needs numpy, msgpack and websockets alone."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from dfplanner.serve.protocol import BUSY, CLOSE_BUSY, packb, unpackb
from dfplanner.types import DFPlannerError

MAX_REPLY = 64 << 20
"""Bytes of the longest reply that is read."""
_TOO_BIG = 1009
_LOG = logging.getLogger("dfplanner.websockets")
_LOG.addHandler(logging.NullHandler())  # what websockets logs of a broken peer is told by our errors


class ClientError(DFPlannerError):
    """Whatever can go wrong between a client and its server."""


class BadRequest(ClientError):
    """The server refused the request itself: sending it again would not help, so it is not retried."""


class WrongServer(ClientError):
    """Something answers at the address, but it is not a planner's server; not retried."""


class ServerBusy(ClientError):
    """The server has too much to do; retried for as long as ``max_wait_s`` allows."""


class ServerLost(ClientError):
    """Nobody listens, the connection broke, or no answer came in time; retried as far as ``max_wait_s`` allows."""


@dataclass(frozen=True, eq=False)
class Reply:
    """A plan. actions (H, A): the next is row 0; states (T, obs): row 0 is the present; both in the metadata's units.

    ``levels`` (T,): the noise level that each of the states was left at.
    ``timing``: milliseconds as the server measured them; ``round_trip_ms``: from sending to here, this attempt alone.
    ``fresh``: the plan does not continue the last one: that was not asked for, it is the first, or the connection was
    lost and with it the server's memory of the plan; then ``committed`` and ``elapsed`` were not sent.
    """

    actions: NDArray[Any]
    states: NDArray[Any] | None
    levels: NDArray[Any] | None
    timing: dict[str, float]
    round_trip_ms: float
    fresh: bool


def backoff(rng: np.random.Generator, first_s: float = 0.05, ceiling_s: float = 2.0) -> Iterator[float]:
    """Endless waits between attempts in seconds: doubling up to a ceiling, each times a random 0.5 to 1."""
    step = first_s
    while True:
        yield step * rng.uniform(0.5, 1.0)
        step = min(2 * step, ceiling_s)


class PlannerClient:
    """Asks a server for plans, and keeps the connection: ``with PlannerClient("ws://127.0.0.1:8000") as client: ...``

    url: ws://HOST:PORT or wss://HOST:PORT. timeout_s: longest wait for one answer. connect_timeout_s: longest time one
    attempt to connect takes. max_wait_s: how long a call, all its attempts together, may go on trying while the server
    is away or busy; 0: one attempt, for control loops. The waits between attempts, also of different calls, are
    ``backoff``'s. Connects at once: raises ServerLost or ServerBusy if it could not in time, WrongServer, and
    DFPlannerError for a bad argument. One thread at a time is served; others wait. ``close`` may be called by any.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 2.0,
        max_wait_s: float = 10.0,
        first_backoff_s: float = 0.05,
        max_backoff_s: float = 2.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.url, self._address = url, _address(url)
        if not (timeout_s > 0 and connect_timeout_s > 0 and max_wait_s >= 0 and 0 <= first_backoff_s <= max_backoff_s):
            raise DFPlannerError(
                f"timeout_s {timeout_s}, connect_timeout_s {connect_timeout_s}, max_wait_s {max_wait_s} and back-offs "
                f"from {first_backoff_s} to {max_backoff_s} s were given; expected times above 0, waits of at least 0"
            )
        self.timeout_s, self.connect_timeout_s, self.max_wait_s = timeout_s, connect_timeout_s, max_wait_s
        self._new_backoff = lambda: backoff(rng or np.random.default_rng(), first_backoff_s, max_backoff_s)
        self._backoff, self._not_before = self._new_backoff(), 0.0
        self._last: ClientError | None = None
        """What the last attempt met, until one succeeds."""
        self._lock = threading.Lock()
        self._stack, self._connection = contextlib.ExitStack(), cast(ClientConnection | None, None)
        self._closing = threading.Event()
        self._continues = False
        """Whether the server holds a plan of ours that the next one can continue."""
        self.metadata: dict[str, Any] = {}
        """What the server says of itself: names, shapes, units, dt_s, horizon; of the latest connection."""
        with self._lock:
            self._persist(self._connect)

    def infer(
        self,
        observation: ArrayLike,
        goal: ArrayLike | None = None,
        objective: Mapping[str, Any] | None = None,
        reset: bool = False,
        committed: int = 0,
        elapsed: int | None = None,
        *,
        seed: int | None = None,
    ) -> Reply:
        """A plan from an observation (obs,) to a goal (positions,), or for a named objective with its parameters.

        ``elapsed``: continue the last plan, which began so many environment steps ago; its next ``committed`` actions
        will be executed whatever comes. ``reset`` forgets it. ``seed`` fixes the noise. Raises BadRequest, ServerBusy,
        ServerLost or WrongServer, after ``max_wait_s`` at most, or after one attempt if that takes longer.
        """
        request: dict[str, Any] = {"observation": _numbers("observation", observation)}
        if goal is not None:
            request["goal"] = _numbers("goal", goal)
        if objective is not None:
            request["objective"] = dict(objective)
        if seed is not None:
            request["seed"] = int(seed)
        follow: dict[str, Any] = {"committed": int(committed)} | ({} if elapsed is None else {"elapsed": int(elapsed)})
        packb(request)  # what cannot be packed is told before anything is sent
        with self._lock:
            return self._persist(lambda left: self._ask(request, follow, reset, left))

    def close(self) -> None:
        """Ends the connection; a call that waits in another thread raises ServerLost. Twice is once."""
        self._closing.set()
        self._drop()

    def __enter__(self) -> PlannerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _persist(self, attempt: Callable[[float], Any]) -> Any:
        """The first success of attempts that are told the seconds left; between them it waits."""
        start = time.monotonic()
        patience = max(self.max_wait_s, self.timeout_s + self.connect_timeout_s)
        while True:
            self._check_open()
            now = time.monotonic()
            wait = self._not_before - now
            if self._last and wait > 0:  # also for a call that comes right after one that failed
                if now + wait - start >= self.max_wait_s:
                    raise type(self._last)(f"{self._last}; the next attempt may be made in {wait:.2g} s")
                self._closing.wait(wait)
                self._check_open()
            try:
                result = attempt(start + patience - time.monotonic())
            except (ServerBusy, ServerLost) as e:
                self._drop()
                self._last, self._not_before = e, time.monotonic() + next(self._backoff)
                if self._not_before - start >= self.max_wait_s:
                    raise
            except BaseException:  # a refused request, an interruption: what still comes on this connection is not ours
                self._drop()
                raise
            else:
                if self._last:
                    self._last, self._backoff = None, self._new_backoff()
                return result

    def _connect(self, patience: float) -> None:
        """A new connection and its metadata."""
        start, limit = time.monotonic(), min(self.connect_timeout_s, patience)
        with _told(self.url, limit):
            sock = socket.create_connection(self._address, max(limit, 1e-3))  # ours, so that no proxy comes between
            try:
                _limit_sends(sock, self.timeout_s)
                sock.settimeout(None)
                self._connection = _handshake(self.url, sock, start + limit - time.monotonic(), self._stack)
            except BaseException:
                sock.close()
                raise
            try:
                self.metadata = _map(self._receive(start + limit - time.monotonic()), self.url)
            except BadRequest as e:
                raise WrongServer(f"{e}, before anything was asked; is it `dfplanner serve`?") from e

    def _ask(self, request: dict[str, Any], follow: dict[str, Any], reset: bool, patience: float) -> Reply:
        """One attempt: connects if need be, sends, waits for the answer."""
        start = time.monotonic()
        if self._connection is None:
            self._connect(patience)
        fresh = reset or not self._continues or not (follow["committed"] or "elapsed" in follow)
        request = {**request, "reset": fresh} | (follow if reset or self._continues else {})
        limit = max(min(self.timeout_s, start + patience - time.monotonic()), 1e-3)
        frame, sent = packb(request), time.monotonic()
        with _told(self.url, limit):
            self._open_connection().send(frame)
            answer = _map(self._receive(limit), self.url)
        self._continues = True
        actions, states, timing = (answer.get(key) for key in ("actions", "states", "server_timing"))
        if not isinstance(actions, np.ndarray) or actions.ndim != 2:
            raise WrongServer(
                f"{self.url} answered without actions of shape (steps, numbers); is it `dfplanner serve`?"
            )
        timing = timing.items() if isinstance(timing, dict) else ()
        numbers = {str(k): float(v) for k, v in timing if isinstance(v, (int, float))}
        states, levels = (x if isinstance(x, np.ndarray) else None for x in (states, answer.get("levels")))
        return Reply(actions, states, levels, numbers, 1e3 * (time.monotonic() - sent), fresh)

    def _receive(self, limit: float) -> bytes:
        """The next frame; a text is the server's complaint."""
        frame = self._open_connection().recv(max(limit, 1e-3))
        if isinstance(frame, bytes):
            return frame
        text = " ".join(frame.split())
        if text.startswith(BUSY):
            raise ServerBusy(f"{self.url} is {text}")
        raise BadRequest(f"{self.url} refused: {text}")

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ServerLost(f"this client of {self.url} was closed; make a new one")

    def _open_connection(self) -> ClientConnection:
        connection = self._connection
        if connection is None:  # another thread closed it
            raise ServerLost(f"this client of {self.url} was closed; make a new one")
        return connection

    def _drop(self) -> None:
        """Forgets the connection, at once if the other side is gone."""
        connection, stack = self._connection, self._stack
        self._connection, self._stack, self._continues = None, contextlib.ExitStack(), False
        if connection is None:
            return
        if not self._closing.is_set():  # nothing good can come any more: no closing handshake to wait for
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(WebSocketException, OSError):
            stack.close()


def _address(url: str) -> tuple[str, int]:
    """Host and port of ws://host:port or wss://host:port."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss") and parts.hostname:
            return parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)
    except (ValueError, TypeError, AttributeError):
        pass
    raise DFPlannerError(f"the address {url!r} cannot be used; expected ws://HOST:PORT, such as ws://127.0.0.1:8000")


def _numbers(name: str, value: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as e:  # rows of different lengths
        raise DFPlannerError(f"the {name} is no array ({e}); expected an array of numbers") from e
    if array.dtype.kind not in "fiub":
        raise DFPlannerError(f"the {name} is of type {array.dtype}; expected an array of numbers")
    return array


def _map(frame: bytes, url: str) -> dict[str, Any]:
    """A frame's map; raises WrongServer if it holds none."""
    try:
        message = unpackb(frame, max_bytes=MAX_REPLY)
    except ValueError as e:
        raise WrongServer(f"{url} sent what is not our protocol ({e}); is it `dfplanner serve`?") from e
    if not isinstance(message, dict):
        raise WrongServer(f"{url} sent a {type(message).__name__} where a map was expected; is it `dfplanner serve`?")
    return message


def _handshake(url: str, sock: socket.socket, limit: float, stack: contextlib.ExitStack) -> ClientConnection:
    """A WebSocket on a connected socket, closed with the stack."""
    made: list[ClientConnection] = []

    def make(*args: Any, **kwargs: Any) -> ClientConnection:
        made.append(ClientConnection(*args, **kwargs))
        return made[0]

    options: Any = {"compression": None, "max_size": MAX_REPLY, "close_timeout": 0.5, "logger": _LOG}
    options |= {"sock": sock, "open_timeout": max(limit, 1e-3), "create_connection": make}
    try:
        return stack.enter_context(connect(url, **options))
    except Exception:  # if the peer speaks first, what is raised depends on who is quicker; the reason is kept here
        reason = made[0].protocol.handshake_exc if made else None
        if reason is None or isinstance(reason.__cause__, EOFError):
            raise
    raise reason


def _limit_sends(sock: socket.socket, seconds: float) -> None:
    """A peer that does not read cannot hold us for ever: websockets' own ``send`` knows no timeout."""
    if os.name == "posix":
        whole = int(seconds)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, int(1e6 * (seconds - whole))))


@contextlib.contextmanager
def _told(url: str, limit: float) -> Iterator[None]:
    """What sockets and websockets raise, as the errors of this module, a sentence each."""
    try:
        yield
    except ClientError:
        raise
    except TimeoutError as e:
        raise ServerLost(f"{url} gave no answer within {limit:.3g} s; is it a planner's server, and alive?") from e
    except ConnectionRefusedError as e:
        raise ServerLost(f"nobody listens at {url}; start `dfplanner serve`, or correct the address") from e
    except ConnectionClosed as e:
        code, reason = (e.rcvd.code, e.rcvd.reason) if e.rcvd else (None, "")
        if code == CLOSE_BUSY:
            raise ServerBusy(f"{url} is busy ({reason or 'it said no more'})") from e
        if code == _TOO_BIG:
            raise BadRequest(f"{url} refused the request as too big ({reason or 'it said no more'})") from e
        how = f"with code {code}{f', {reason}' if reason else ''}" if code else "without a word"
        raise ServerLost(f"the connection to {url} ended {how}; the server stopped or the network broke") from e
    except InvalidStatus as e:
        status, text = e.response.status_code, " ".join((e.response.body or b"").decode(errors="replace").split())
        if status == 503:  # `dfplanner serve` refuses so who has no room, before the handshake
            raise ServerBusy(f"{url} is {text if text.startswith(BUSY) else 'busy: it answered status 503'}") from e
        raise WrongServer(f"{url} answered with HTTP status {status}; is it `dfplanner serve`?") from e
    except InvalidMessage as e:
        if isinstance(e.__cause__, EOFError):
            raise ServerLost(f"{url} hung up before it answered; the server stopped, or it is no WebSocket") from e
        raise WrongServer(f"{url} does not speak WebSocket; is it `dfplanner serve`?") from e
    except InvalidHandshake as e:
        raise WrongServer(f"{url} does not speak WebSocket ({e}); is it `dfplanner serve`?") from e
    except (WebSocketException, OSError) as e:
        raise ServerLost(f"{url} could not be reached ({e}); check the address and the network") from e
