"""The socket, the signals, and the process that serves until it is asked to stop."""

import asyncio
import signal
import socket
from collections.abc import Callable
from ipaddress import ip_address
from types import FrameType
from typing import Self

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from dist_s2s import UserError

# torchrun kills a worker 30 seconds after it has asked it to stop.
SECONDS_TO_FINISH = 20
SECONDS_FOR_A_REQUEST = 30.0
_MAX_CONNECTIONS = 1000


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection where no whole request has come for ``SECONDS_FOR_A_REQUEST``, or twice that.

    uvicorn's own limit begins with the end of an answer, so that those who never ask would stay for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._seen: object = self  # no request
        self._look_later()

    def _look_later(self) -> None:
        self.loop.call_later(SECONDS_FOR_A_REQUEST, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._seen is self.cycle:
            self.transport.close()
            return
        self._seen = self.cycle if is_idle else self
        self._look_later()


class StopSignals:
    """A context manager within which SIGINT and SIGTERM are noted, and no more.

    Attributes:
        number: of the last signal; 0 before any.
        stop: what a signal does beside; others may call it too.
    """

    def __init__(self) -> None:
        self.number = 0
        self.stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def is_noted(self) -> bool:
        """Tell whether a signal has come."""
        return self.number != 0

    @property
    def exit_status(self) -> int:
        """What a service exits with that a signal has stopped: SIGTERM is how one is meant to end."""
        return 128 + signal.SIGINT if self.number == signal.SIGINT else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.stop()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has the port but does not listen yet, so that nobody connects before there are answers.

    Raises:
        UserError: the port is in use or not for this user, or there is no such host here.
    """
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter if it cannot be a name at all
        raise UserError(f"--host {host} is no address: {getattr(error, 'strerror', error)}") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not for a port where another still listens
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unusable(host, port, error) from None
    return listener


def listen(listener: socket.socket) -> str:
    """Let clients connect; return the address of the page.

    Raises:
        UserError: another has begun to listen on the port since it was bound.
    """
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(_MAX_CONNECTIONS)
    except OSError as error:
        raise _unusable(host, port, error) from None
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether only this machine can reach the socket."""
    return ip_address(listener.getsockname()[0]).is_loopback


def serve(app: ASGIApp, listener: socket.socket, signals: StopSignals) -> None:
    """Serve until a signal, or a call of ``signals.stop``: then answer the requests under way, and take no more.

    Args:
        app: what is served.
        listener: which listens.
        signals: entered.
    """

    def stop() -> None:
        server.should_exit = True

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=ImpatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    server = uvicorn.Server(config)
    signals.stop = stop
    if signals.is_noted():
        stop()
    server.run(sockets=[listener])  # afterwards it hands the signal on to the handler that was there before


def _unusable(host: str, port: int, error: OSError) -> UserError:
    return UserError(f"cannot listen on port {port} of {host}: {error.strerror}; give another --port")
