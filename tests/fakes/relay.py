"""aiosmtpd as the relay: a real SMTP server, in a thread with its own loop, on a free port."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import weakref
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class PatientSMTP(SMTP):
    """aiosmtpd, but for its limit on a line's length: deferd promises to leave lines as long as they are."""

    line_length_limit = 1 << 22


@dataclass
class Arrival:
    """A message that the relay has taken."""

    sender: str
    recipients: list[str]
    content: bytes
    peer: Any
    secure: bool


@dataclass
class Relay:
    """Takes everything after `delay` seconds for each command, but answers from `script` where it has one.

    `script` maps a recipient to the replies that its RCPTs get, one after the other; then it is accepted.
    """

    tls: ssl.SSLContext | None = None
    implicit: bool = False
    password: tuple[str, str] | None = None
    delay: float = 0.0
    script: dict[str, list[str]] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    connections: int = 0
    most_connections: int = 0

    def __post_init__(self) -> None:
        self._busy: set[Any] = set()
        self._servers: weakref.WeakSet[SMTP] = weakref.WeakSet()
        self._came = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]

    def _session(self) -> SMTP:
        options: dict[str, Any] = {"hostname": "relay.test", "enable_SMTPUTF8": True, "data_size_limit": 1 << 26}
        if self.tls and not self.implicit:
            options |= {"tls_context": self.tls, "require_starttls": True}
        if self.password:
            options |= {
                "authenticator": self._check,
                "auth_required": True,
                "auth_require_tls": not self.implicit and self.tls is not None,
            }
        server = PatientSMTP(self, loop=self._loop, **options)
        self._servers.add(server)
        return server

    def _check(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        assert self.password
        assert isinstance(data, LoginPassword)
        user, password = self.password
        return AuthResult(success=(data.login, data.password) == (user.encode(), password.encode()), handled=False)

    async def handle_EHLO(
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Count the connection."""
        await asyncio.sleep(self.delay)
        session.host_name = hostname
        self.connections += 1
        return responses

    async def handle_MAIL(
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take any sender."""
        await asyncio.sleep(self.delay)
        self._busy.add(session.peer)
        self.most_connections = max(self.most_connections, len(self._busy))
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 sender ok"

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take any recipient that the script does not refuse."""
        await asyncio.sleep(self.delay)
        replies = self.script.get(address)
        if replies:
            return replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 recipient ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message."""
        await asyncio.sleep(self.delay)
        content = envelope.original_content or b""
        arrival = Arrival(
            (envelope.mail_from or "").removeprefix("<>"),  # as aiosmtpd names the null sender
            list(envelope.rcpt_tos),
            content,
            session.peer,
            bool(session.ssl) or server.transport.get_extra_info("sslcontext") is not None,
        )
        self._busy.discard(session.peer)
        with self._came:
            self.arrivals.append(arrival)
            self._came.notify_all()
        return "250 2.0.0 taken"

    def wait_for(self, count: int, patience: float = 30.0) -> list[Arrival]:
        """The arrivals, once there are `count` of them. Fails after `patience` seconds."""
        with self._came:
            enough = self._came.wait_for(lambda: len(self.arrivals) >= count, patience)
            assert enough, f"{len(self.arrivals)} of {count} messages arrived within {patience} s"
            return list(self.arrivals)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        context = self.tls if self.implicit else None
        self._server = self._loop.run_until_complete(
            self._loop.create_server(self._session, sock=self._socket, ssl=context, backlog=1024)
        )
        self._loop.run_forever()
        self._server.close()
        for server in self._servers:
            if server.transport is not None:
                server.transport.abort()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def __enter__(self) -> Relay:
        self._thread = threading.Thread(target=self._serve, name="relay")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
