"""What every request passes: the host's name is checked, headers are added, and the request is counted."""

import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dist_s2s.serving.metrics import Metrics

# The page's own style sheet and script, and requests to where it came from: nothing else is loaded, run or asked.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Gate:
    """Around an application.

    Args:
        app: the application.
        metrics: where requests are counted.
        hosts: names that a request's Host header may have; None: any. A page from elsewhere whose name has been made to
            lead to this machine (DNS rebinding) has another.
        paths: those that are counted by name.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: frozenset[str] | None, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._hosts, self._paths = app, metrics, hosts, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await (self._refused(Headers(scope=scope)) or self._app)(scope, receive, self._watched(send, scope["path"]))

    def _refused(self, headers: Headers) -> ASGIApp | None:
        """Return the refusal of a request that a page from elsewhere makes a browser send, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is None:
            return None
        if _name_of(host) not in self._hosts:
            names = ", ".join(sorted(self._hosts))
            return JSONResponse({"error": f"this service is called {names}, not {host}"}, status_code=421)
        if origin is not None and origin != f"http://{host}":
            return JSONResponse({"error": f"pages of {origin} may not ask this service"}, status_code=403)
        return None

    def _watched(self, send: Send, path: str) -> Send:
        started, path = time.perf_counter(), path if path in self._paths else "other"

        async def send_watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                self._metrics.requests.labels(path, str(message["status"])).inc()
                self._metrics.seconds.labels(path).observe(time.perf_counter() - started)
            await send(message)

        return send_watched


def _name_of(host: str) -> str | None:
    try:
        return None if "@" in host else urlsplit(f"//{host}").hostname
    except ValueError:
        return None
