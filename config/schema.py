"""Every key of the configuration: what it holds, and what must fit together. The one place to add a key."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from typing import Any, Final

from config import domains, files, system
from config.document import Mapping
from config.problems import Problems
from config.readers import (
    Many,
    Nullable,
    Reader,
    Section,
    Spot,
    duration,
    joined,
    octets,
    one_of,
    rate,
    ratio,
    text,
    whole,
)
from config.settings import Http, Limits, Log, Queue, Retry, Route, Secret, Settings, SiteRest, Timeouts

MOST: Final = 1_000_000


def _given(key: str, values: dict[str, Any], spot: Spot) -> bool:
    """Whether the section has a value for `key`, right or wrong, that is not null."""
    return key in spot.mapping.entries and (key not in values or values[key] is not None)


def _check_route(values: dict[str, Any], spot: Spot) -> None:
    """Put the password of `password_file` in place; complain of half a login and of what contradicts itself."""
    if values.get("password") is not None and values.get("password_file") is not None:
        spot.complain("password_file", "is given beside password; keep one of them")
    elif isinstance(values.get("password_file"), str):
        try:
            values["password"] = files.read_password(values["password_file"])
        except ValueError as error:
            spot.complain("password_file", str(error))
    given = [key for key in ("username", "password", "password_file") if _given(key, values, spot)]
    if given == ["username"]:
        spot.complain("username", "has no password; give password_file or password too")
    if given and "username" not in given:
        spot.complain(given[0], "has no username; give username too")
    if isinstance(values.get("ca_file"), str):
        try:
            files.check_certificates(values["ca_file"])
        except ValueError as error:
            spot.complain("ca_file", str(error))
    relays = values.get("relay", ())
    if values.get("tls") == "none" and any(relay.scheme == "smtps" for relay in relays):
        spot.complain("tls", "is none, and an smtps:// relay is TLS from the start; write smtp:// or remove tls")


def _check_site_rest(values: dict[str, Any], spot: Spot) -> None:
    defaults = SiteRest()
    first = values.get("first", defaults.first)
    if first > values.get("longest", defaults.longest):
        spot.complain("first" if "first" in values else "longest", "makes first longer than longest; make it shorter")


def _check_settings(values: dict[str, Any], spot: Spot) -> None:
    """Name the machine where the file does not; complain of no routes."""
    if values.get("hostname") is None:
        values["hostname"] = system.machine_name()
    if "routes" not in spot.mapping.entries:
        spot.complain("routes", "is missing; give at least one route, with domains and relay")


def check_open_files(limits: Limits, root: Mapping, problems: Problems) -> None:
    """Complain of more connections than the system lets a process have."""
    most = system.most_connections()
    if most is not None and limits.connections > most:
        node = root.entries.get("limits", root)
        place = node.places.get("connections", node.place) if isinstance(node, Mapping) else node.place
        what = f"is {limits.connections}, and the system's hard limit of open files allows {most}"
        problems.add(place, "limits.connections", f"{what}; lower it or raise that (ulimit -Hn, LimitNOFILE=)")


ROUTE: Final = Section(
    Route,
    {
        "domains": Many(text(domains.pattern), alone=True),
        "relay": Many(text(domains.relay, wanted=domains.RELAY), alone=True),
        "tls": one_of("none", "opportunistic", "encrypt", "verify"),
        "username": Nullable(text()),
        "password": Nullable(text(Secret, secret=True)),
        "password_file": Nullable(text()),
        "ca_file": Nullable(text()),
        "connections": Nullable(whole(1, MOST)),
        "rate": Nullable(rate()),
    },
    _check_route,
)

RETRY: Final = Section(
    Retry,
    {
        "delays": Many(duration()),
        "jitter": ratio(),
        "max_age": duration(),
        "warn_after": Nullable(duration()),
        "site_rest": Section(SiteRest, {"first": duration(), "longest": duration()}, _check_site_rest),
    },
)

LIMITS: Final = Section(
    Limits,
    {
        "connections": whole(1, MOST),
        "connections_per_site": whole(1, MOST),
        "rate_per_site": Nullable(rate()),
        "messages_per_connection": whole(1, MOST),
        "message_size": octets(),
        "recipients": whole(1, MOST),
    },
)

TIMEOUTS: Final = Section(
    Timeouts,
    {
        **{name: duration() for name in ("connect", "greeting", "command", "tls", "data", "write", "confirm")},
        "idle": duration(zero=True),
        "drain": duration(zero=True),
    },
)

LOG: Final = Section(Log, {"format": one_of("json", "console"), "level": one_of("debug", "info", "warning", "error")})

SCHEMA: Final = Section(
    Settings,
    {
        "queue": Section(
            Queue,
            {
                "directory": text(files.absolute),
                "results": one_of("all", "failed", "none"),
                "attachments": Many(text(files.absolute), alone=True, least=0),
            },
        ),
        "hostname": Nullable(text(domains.own_name)),
        "routes": Many(ROUTE),
        "retry": RETRY,
        "limits": LIMITS,
        "timeouts": TIMEOUTS,
        "http": Section(Http, {"listen": Nullable(text(domains.listen, wanted=domains.LISTEN))}),
        "log": LOG,
    },
    _check_settings,
)


def paths(reader: Reader = SCHEMA, path: str = "") -> Iterator[str]:
    """The path of every key; the items of a list are `[0]`."""
    if isinstance(reader, Section):
        for key, inner in reader.keys.items():
            yield joined(path, key)
            yield from paths(inner, joined(path, key))
    elif isinstance(reader, Many):
        yield from paths(reader.item, f"{path}[0]")


@functools.cache
def _by_last_word() -> dict[str, str]:
    return {path.rpartition(".")[2]: path for path in reversed(list(paths()))}


def nearest(wrong: str) -> str | None:
    """The path of the key that was probably meant."""
    known = list(paths())
    last = wrong.rpartition(".")[2]
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.75)
    if not close:
        words = difflib.get_close_matches(last, list(_by_last_word()), n=1, cutoff=0.75)
        close = [_by_last_word()[words[0]]] if words else []
    index = re.search(r"\[[0-9]+\]", wrong)
    return close[0].replace("[0]", index[0] if index else "[0]") if close else None
