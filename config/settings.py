"""The settings, as frozen values: the attribute names are the configuration's keys, the defaults are its defaults.

`Settings()` alone is valid and has every default. What a file or the environment says is checked by `config.loader`;
nothing is checked here. Durations are in seconds, sizes in octets, rates in messages a second.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Scheme = Literal["smtp", "smtps", "lmtp"]
Tls = Literal["none", "opportunistic", "encrypt", "verify"]
Results = Literal["all", "failed", "none"]
LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Secret(str):
    """Text that does not show in a repr, and so in no traceback and no printed settings."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')"


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """Where jobs wait, and which of them get a result file.

    `attachments` are the folders, beside new/, from which jobs may attach files.
    """

    directory: str = "/var/spool/deferd"
    results: Results = "all"
    attachments: tuple[str, ...] = ()


class Relay(msgspec.Struct, frozen=True):
    """A mail server to hand messages to. `host` is a name or an address, without brackets.

    `smtps` is TLS from the first octet; `lmtp` is RFC 2033.
    """

    scheme: Scheme
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail for some domains goes: to the first relay that serves.

    A pattern in `domains` is a domain as a lower-case A-label, `*.domain` for what is below it, or `*` for any.
    `password` is the secret itself, read from `password_file` where that is given. `connections` and `rate` stand
    for this route in place of `Limits.connections_per_site` and `Limits.rate_per_site`; None leaves it to those.
    """

    domains: tuple[str, ...]
    relay: tuple[Relay, ...]
    tls: Tls = "verify"
    username: str | None = None
    password: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    connections: int | None = None
    rate: float | None = None


class SiteRest(msgspec.Struct, frozen=True, kw_only=True):
    """How long a site rests when its host was at fault: `first`, then doubling up to `longest`."""

    first: float = 1.0
    longest: float = 300.0


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When a message is tried again: after each of `delays`, the last repeating, spread by `jitter` (0 to 1).

    After `max_age` it fails; after `warn_after` its sender is told that it is late (None: never).
    """

    delays: tuple[float, ...] = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0)
    jitter: float = 0.2
    max_age: float = 432_000.0
    warn_after: float | None = 14_400.0
    site_rest: SiteRest = SiteRest()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much at once, and how fast. `message_size` is in octets; `recipients` is for one job.

    `connections_per_site` is the most that a site may come to have, if it serves us well; `rate_per_site` is None for
    no limit.
    """

    connections: int = 500
    connections_per_site: int = 20
    rate_per_site: float | None = None
    messages_per_connection: int = 100
    message_size: int = 50 * 1024 * 1024
    recipients: int = 1000


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long each wait may take, in seconds.

    `connect` is for all addresses of a host together, `write` for progress while content goes out, `confirm` for the
    answer to the final dot, `idle` for a kept connection without work, `drain` for the end after SIGTERM.
    """

    connect: float = 30.0
    greeting: float = 300.0
    command: float = 300.0
    tls: float = 60.0
    data: float = 120.0
    write: float = 180.0
    confirm: float = 600.0
    idle: float = 10.0
    drain: float = 25.0


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """Where health, metrics and the page are served: `address:port`, IPv6 in brackets; None is off."""

    listen: str | None = "127.0.0.1:8025"


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """How events are written to standard output, and from which level on."""

    format: LogFormat = "json"
    level: LogLevel = "info"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the operator wants. `hostname` is for EHLO; the loader puts the machine's name there."""

    queue: Queue = Queue()
    hostname: str = "localhost"
    routes: tuple[Route, ...] = ()
    retry: Retry = Retry()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    http: Http = Http()
    log: Log = Log()
