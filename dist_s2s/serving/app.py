"""The routes of a service: the page, the JSON API, health and metrics."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dist_s2s import UserError
from dist_s2s.serving.answers import Answer
from dist_s2s.serving.batching import Batcher
from dist_s2s.serving.gate import Gate
from dist_s2s.serving.limits import Limits
from dist_s2s.serving.metrics import CONTENT_TYPE, Metrics
from dist_s2s.serving.requests import Refusal, parse_neighbours, parse_translate, too_large

_PAGE = {
    "/": ("page.html", "text/html"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
# A body that is too large is read nevertheless, and thrown away: a client that is still sending sees no answer.
_MOST_DRAINED = 1 << 24
_SECONDS_FOR_A_BODY = 30


class Routes:
    """The routes, and what they share.

    Args:
        batcher: which answers.
        limits: of requests.
        metrics: what has been counted.
        about: what /health says of the run.
    """

    def __init__(self, batcher: Batcher, limits: Limits, metrics: Metrics, about: Answer) -> None:
        self._batcher, self._limits, self._metrics, self._about = batcher, limits, metrics, about

    def app(self, hosts: frozenset[str] | None) -> ASGIApp:
        """Return the ASGI application.

        Args:
            hosts: names by which clients may call it; None: any.
        """
        routes = [
            *(Route(path, self._page, methods=["GET"]) for path in _PAGE),
            Route("/translate", self._translate, methods=["POST"]),
            Route("/neighbours", self._neighbours, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._figures, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {
            Refusal: _refuse,
            HTTPException: _refuse_http,
            ClientDisconnect: _nobody_is_there,
            Exception: _confess,
        }

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self._batcher.running():
                yield

        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
        return Gate(app, self._metrics, hosts, frozenset(route.path for route in routes))

    async def _page(self, request: Request) -> Response:
        name, kind = _PAGE[request.url.path]
        return Response(files("dist_s2s.serving").joinpath("page", name).read_bytes(), media_type=kind)

    async def _translate(self, request: Request) -> Response:
        asked = parse_translate(await self._body(request), self._limits)
        try:
            answers = await _unless_gone(request, self._batcher.translate(asked))
        except UserError as error:
            raise Refusal(400, str(error)) from None
        return JSONResponse({"translations": answers})

    async def _neighbours(self, request: Request) -> Response:
        asked = parse_neighbours(request.query_params)
        try:
            return JSONResponse(await _unless_gone(request, self._batcher.neighbours(asked)))
        except UserError as error:
            raise Refusal(404, str(error)) from None

    async def _health(self, request: Request) -> Response:
        failed = self._batcher.failure is not None
        about = {"status": "failed" if failed else "ok", **self._about, "limits": asdict(self._limits)}
        return JSONResponse(about, status_code=503 if failed else 200)

    async def _figures(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _body(self, request: Request) -> bytes:
        """Return the body of a request, of which no more than ``max_body`` bytes are kept."""
        length = request.headers.get("content-length", "0")
        most_read = max(_MOST_DRAINED, self._limits.max_body)
        if length.isdecimal() and int(length) > most_read:
            raise too_large(self._limits)
        kept, size = list[bytes](), 0
        try:
            async with asyncio.timeout(_SECONDS_FOR_A_BODY):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= self._limits.max_body:
                        kept.append(chunk)
                    elif size > most_read:
                        break
        except TimeoutError:
            raise Refusal(408, f"the request has not come within {_SECONDS_FOR_A_BODY} seconds") from None
        if size > self._limits.max_body:
            raise too_large(self._limits)
        return b"".join(kept)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Return what the work returns; once the client has hung up, end the work, for which others wait."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_hangs_up(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        task.cancel()
        gone.cancel()


async def _hangs_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(request: Request, refusal: Refusal) -> Response:
    return JSONResponse({"error": refusal.message}, status_code=refusal.status)


async def _refuse_http(request: Request, error: HTTPException) -> Response:
    path, allowed = request.url.path, (error.headers or {}).get("Allow")
    reasons = {404: f"there is no {path} here", 405: f"{path} takes {allowed}, not {request.method}"}
    message = reasons.get(error.status_code, error.detail)
    return JSONResponse({"error": message}, status_code=error.status_code, headers=error.headers)


async def _nobody_is_there(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # as nginx counts it


async def _confess(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "something went wrong in the service; its log says what"}, status_code=500)
