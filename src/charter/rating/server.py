"""The server behind the page: fixed routes, nothing from the file system but five files read at the start.

GET   /  /rate.css  /rate.js  /text.js  /icon.svg     the page
GET   /session       who am I, and the CSRF token
GET   /agreement     how far raters agree
POST  /join {name}   POST /next {}   POST /label {id, pair_id, choice, note}   POST /undo {id}

A label is committed before the answer to its POST, which brings the next pair, is sent.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charter.errors import StoreError
from charter.rating.agreement import agreement
from charter.rating.guard import HEADERS, Guard
from charter.rating.items import shown_order
from charter.records import Order
from charter.store.labels import HumanLabel, Item, LabelConflict, LabelStore, Verdict

MAX_BODY_BYTES = 64 * 1024
MAX_NOTE_CHARACTERS = 4000
MAX_NAME_CHARACTERS = 40
_COOKIE_SECONDS = 30 * 24 * 3600
_ID = re.compile(r"[A-Za-z0-9-]{16,64}")
_PAGE = Path(__file__).parent / "page"
_TYPES = {
    "index.html": "text/html",
    "closed.html": "text/html",
    "rate.css": "text/css",
    "rate.js": "text/javascript",
    "text.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Refused(Exception):
    """A request that gets an error status and one sentence."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


class Guarded:
    """Middleware: refuses foreign hosts and puts the security headers on every answer, errors among them."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        reason = self._guard.refuse_host(Request(scope).headers)
        answer = Response(reason, 421, media_type="text/plain") if reason else self._app
        await answer(scope, receive, send_guarded)


class RatingServer:
    """Answers requests from one label store."""

    def __init__(self, store: LabelStore, guard: Guard) -> None:
        self._store, self._guard = store, guard
        self._files = {name: (_PAGE / name).read_bytes() for name in _TYPES}

    def app(self) -> ASGIApp:
        """The ASGI application."""
        files = [name for name in _TYPES if not name.endswith(".html")]
        routes = [
            Route("/", self._index, methods=["GET"]),
            *(Route(f"/{name}", partial(self._file, name), methods=["GET"]) for name in files),
            Route("/session", self._answering(self._session), methods=["GET"]),
            Route("/agreement", self._answering(self._agreement), methods=["GET"]),
            *(
                Route(f"/{act.__name__.strip('_')}", self._answering(act), methods=["POST"])
                for act in (self._join, self._next, self._label, self._undo)
            ),
        ]
        return Guarded(Starlette(routes=routes), self._guard)

    def _html(self, name: str, status: int = 200) -> Response:
        return Response(self._files[name], status, media_type="text/html")

    async def _file(self, name: str, request: Request) -> Response:
        return Response(self._files[name], media_type=_TYPES[name])

    async def _index(self, request: Request) -> Response:
        """The page itself; with ?token=… it also becomes a cookie, and the page takes it out of the address bar.

        No redirect here: a browser that came by a link elsewhere would not send a SameSite=Strict cookie along with it.
        """
        token = request.query_params.get("token")
        if not self._guard.knows(token or request.cookies.get(self._guard.cookie)):
            return self._html("closed.html", 403)
        response = self._html("index.html")
        if token:
            self._set_cookie(response, self._guard.cookie, token)
        return response

    def _set_cookie(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(name, value, max_age=_COOKIE_SECONDS, httponly=True, samesite="strict")

    def _answering(self, act: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
        """A route that checks who asks, does ``act(rater, body)`` off the event loop and answers in JSON."""

        async def route(request: Request) -> Response:
            try:
                rater = self._rater(request)
                body = await self._body(request, rater) if request.method == "POST" else {}
                answer, status = await run_in_threadpool(act, rater, body), 200
            except Refused as refusal:
                answer, status = {"error": refusal.reason}, refusal.status
            except StoreError as error:
                answer, status = {"error": str(error)}, 503
            response = Response(json.dumps(answer), status, media_type="application/json")
            if status == 200 and request.url.path == "/join":
                self._set_cookie(response, self._guard.rater_cookie, quote(answer["rater"]))
            return response

        return route

    def _rater(self, request: Request) -> str:
        if not self._guard.knows(request.cookies.get(self._guard.cookie)):
            raise Refused(403, "This page is closed: open the link that charter rate printed.")
        return _name(unquote(request.cookies.get(self._guard.rater_cookie, ""))) or ""

    async def _body(self, request: Request, rater: str) -> dict[str, Any]:
        reason = self._guard.refuse_post(request.headers, rater)
        if reason:
            raise Refused(403, f"Refused: {reason}. Reload the page.")
        content = b""
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise Refused(413, "That is too long.")
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise Refused(400, "That is no JSON object.")
        return body

    def _session(self, rater: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"rater": rater, "csrf": self._guard.csrf_token(rater)}

    def _agreement(self, rater: str, body: dict[str, Any]) -> dict[str, Any]:
        return agreement(self._store.labels())

    def _join(self, rater: str, body: dict[str, Any]) -> dict[str, Any]:
        name = _name(body.get("name"))
        if not name:
            raise Refused(400, f"Give a name of 1 to {MAX_NAME_CHARACTERS} letters.")
        return self._session(name, {})

    def _next(self, rater: str, body: dict[str, Any]) -> dict[str, Any]:
        if not rater:
            raise Refused(401, "Say who you are first.")
        item = self._store.next_item(rater)
        return {"item": self._show(item, rater) if item else None, "tally": self._store.tally(rater).to_json()}

    def _show(self, item: Item, rater: str) -> dict[str, Any]:
        pair = item.pair
        responses = [pair.response_a, pair.response_b]
        return {
            "pair_id": pair.id,
            "messages": [message.to_json() for message in pair.prompt.messages],
            "principle": item.principle,
            "responses": responses if self._order(rater, pair.id) == "ab" else responses[::-1],
        }

    def _order(self, rater: str, pair_id: str) -> Order:
        return shown_order(self._store.salt, rater, pair_id)

    def _label(self, rater: str, body: dict[str, Any]) -> dict[str, Any]:
        if not rater:
            raise Refused(401, "Say who you are first.")
        id, pair_id, note = body.get("id"), body.get("pair_id"), body.get("note", "")
        if not (isinstance(id, str) and _ID.fullmatch(id) and isinstance(pair_id, str) and isinstance(note, str)):
            raise Refused(400, "Not a label.")
        shown = self._order(rater, _stored(pair_id))
        label = HumanLabel(id, _stored(pair_id), rater, _verdict(body.get("choice"), shown), shown, _note(note))
        try:
            self._store.add_label(label)
        except KeyError as error:
            raise Refused(404, "There is no such pair.") from error
        except LabelConflict as error:
            raise Refused(409, "You have labelled this pair already, perhaps in another window.") from error
        return self._next(rater, {})

    def _undo(self, rater: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            self._store.undo(_stored(str(body.get("id"))), rater)
        except KeyError as error:
            raise Refused(404, "There is nothing of yours to undo.") from error
        return self._next(rater, {})


def _verdict(choice: Any, shown: Order) -> Verdict:
    """From the position on the page to the response of the pair."""
    first: Verdict = "a" if shown == "ab" else "b"
    second: Verdict = "b" if shown == "ab" else "a"
    verdicts: dict[Any, Verdict] = {"first": first, "second": second, "tie": "tie", "skip": "skip"}
    if not isinstance(choice, str) or choice not in verdicts:
        raise Refused(400, "A choice is first, second, tie or skip.")
    return verdicts[choice]


def _stored(text: str) -> str:
    """Text that both databases can hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _note(text: str) -> str:
    note = _stored(text).strip()
    if len(note) > MAX_NOTE_CHARACTERS:
        raise Refused(400, f"A note has at most {MAX_NOTE_CHARACTERS} characters.")
    return note


def _name(value: Any) -> str | None:
    """A rater's name, or None: one line of printable characters (no controls, no marks that reorder text)."""
    name = " ".join(value.split()) if isinstance(value, str) else ""
    return name if 0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable() else None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        StoreError: the address can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{host}:{port}: {reason.lower()}: choose another --port or --host") from error
    return listener


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer until interrupted. No access log: the first request of each rater carries the token."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none")
    uvicorn.Server(config).run(sockets=[listener])
