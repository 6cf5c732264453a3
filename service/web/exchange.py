"""What is asked of the web server and what it answers, as values; and as h11's events."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11
import msgspec

from deferred.defer import Deferred

_SECURITY: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_NOTHING_ELSE: Final = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
_ABSOLUTE: Final = re.compile(r"(?i)https?://[^/?#]*")


class Request(msgspec.Struct, frozen=True):
    """What was asked for. `path` is as it stood in the request, without the query; header names are lower-case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}


class Response(msgspec.Struct, frozen=True):
    """What is answered. A Content-Security-Policy that forbids everything is added where `headers` has none."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response | Deferred[Response]]


def plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A line of text."""
    return Response(status, f"{text}\n".encode(), headers=headers)


def read_request(event: h11.Request) -> Request:
    """The request that h11 has read."""
    target = event.target.decode("latin-1")
    if not target.startswith("/"):
        target = _ABSOLUTE.sub("", target) or "/"  # which a server has to take as well (RFC 9112, 3.2.2)
    path, _, query = target.partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
    return Request(event.method.decode("latin-1"), path, query, headers)


def write_response(response: Response, now: float, *, head: bool, close: bool) -> list[h11.Event]:
    """The events that answer a request at `now` (seconds since the epoch): without the body for a HEAD.

    `close` tells the peer that this is the connection's last answer.
    """
    headers = [
        ("Date", formatdate(now, usegmt=True)),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        *_SECURITY,
        *response.headers,
    ]
    if not any(name == _NOTHING_ELSE[0] for name, _ in response.headers):
        headers.append(_NOTHING_ELSE)
    if close:
        headers.append(("Connection", "close"))
    events: list[h11.Event] = [
        h11.Response(status_code=response.status, headers=headers, reason=_reason(response.status))
    ]
    if response.body and not head:
        events.append(h11.Data(data=response.body))
    return [*events, h11.EndOfMessage()]


def _reason(status: int) -> bytes:
    """The words that go with a status: nothing reads them but people."""
    return HTTPStatus(status).phrase.encode()
