"""The service of the first rank, from the turns of all ranks to the socket."""

import socket
import sys
from typing import Any

from dist_s2s.serving.app import Routes
from dist_s2s.serving.batching import Batcher
from dist_s2s.serving.limits import Limits
from dist_s2s.serving.metrics import Metrics
from dist_s2s.serving.server import StopSignals, is_loopback, serve
from dist_s2s.serving.turns import Turns


def run_service(
    turns: Turns, limits: Limits, listener: socket.socket, signals: StopSignals, about: dict[str, Any]
) -> None:
    """Serve until a signal to any rank; then end the turns.

    Args:
        turns: of the first rank.
        limits: of requests.
        listener: which listens.
        signals: of this process, entered.
        about: what /health says of the run.

    Raises:
        Exception: whatever has made it impossible for the ranks to answer together.
    """
    host, hosts = listener.getsockname()[0], None
    if is_loopback(listener):
        hosts = frozenset({"127.0.0.1", "::1", "localhost", host})
    else:
        print(f"warning: whoever can reach {host} can use this service; there is no password", file=sys.stderr)
    metrics = Metrics()
    batcher = Batcher(turns, limits, metrics, lambda: signals.stop())  # which is set only when the server is there
    try:
        serve(Routes(batcher, limits, metrics, about).app(hosts), listener, signals)
    finally:
        if batcher.failure is None:
            turns.end()
    if batcher.failure is not None:
        raise batcher.failure
