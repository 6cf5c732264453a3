"""The page at `/`: how the daemon fares, on one screen, readable at three in the morning on a phone.

A pure function of what it is given: no script, nothing fetched from elsewhere, everything escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from config.units import rate_in_words
from service.web.exchange import Response
from service.web.recent import Trouble

MOST_SITES: Final = 50
_LONG: Final = 5.0
"""Seconds in flight after which a message is worth a word."""
_NO_TROUBLES: Final = "None since the start, but for sites that rest: they stand above."


class SiteLine(msgspec.Struct, frozen=True, kw_only=True):
    """A site as the page shows it. `due`, `rest_until` and `next_at` are by the store's time, `limit` how many messages
    may be in flight at once as things are (0: it is not known), `rate` how many may go in a second (None: as many as
    can), and then `next_at` is when the next may go. `oldest` is the message that has been in flight for longest, since
    `oldest_since`, and at which step it is."""

    site: str
    due: float | None = None
    in_flight: int = 0
    limit: int = 0
    rate: float | None = None
    rest_until: float | None = None
    next_at: float | None = None
    oldest: str = ""
    oldest_since: float | None = None
    why: str = ""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page tells. `oldest` is since when the oldest job waits; `queued` leaves out what is held.

    `wrong` is why the daemon is not at its work, "" where it is; `set_aside` are the folders of damaged queues. Times
    are by the store's time, of which it is `now`, while the wall clock shows `wall`.
    """

    version: str
    now: float
    wall: float
    hostname: str = ""
    wrong: str = ""
    set_aside: Sequence[Path] = ()
    queued: int | None = None
    held: int | None = None
    oldest: float | None = None
    in_flight: int = 0
    totals: Sequence[tuple[str, int]] = ()
    sites: Sequence[SiteLine] = ()
    troubles: Sequence[Trouble] = ()


_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1a1d21;--paper:#fff;--dim:#5c6670;--line:#d5dadf;--bad:#b3261e;--good:#1a7f37}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ea;--paper:#14171a;--dim:#98a2ac;--line:#333a41;--bad:#ff8a80;
--good:#6fd58a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;font:1rem/1.45 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
h1{font-size:1.25rem;margin:0}h2{font-size:1rem;margin:1.75rem 0 .4rem}
p{margin:.25rem 0}.dim,small{color:var(--dim)}.bad{color:var(--bad)}.good{color:var(--good)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.5rem,1fr));gap:.5rem;margin:1rem 0}
dl div{border:1px solid var(--line);border-radius:.4rem;padding:.45rem .65rem}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-size:1.35rem;font-variant-numeric:tabular-nums}
ul{list-style:none;margin:0;padding:0}li{border-top:1px solid var(--line);padding:.45rem 0;overflow-wrap:anywhere}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEAD: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="15">
<title>{{title}}</title>
<style>{_STYLE.replace("{", "{{").replace("}", "}}")}</style>
</head>
"""


def page(view: Overview) -> Response:
    """The overview as a page."""
    return Response(
        200, _html(view).encode("utf-8", "replace"), "text/html; charset=utf-8", (("Content-Security-Policy", _POLICY),)
    )


def _html(view: Overview) -> str:
    waiting = "" if view.queued is None else f"{view.queued} waiting – "
    name = f"deferd on {view.hostname}" if view.hostname else "deferd"
    state = (
        f'<p class="bad" role="alert"><strong>Not working: {_text(view.wrong)}</strong></p>'
        if view.wrong
        else '<p class="good">Working.</p>'
    )
    return "".join(
        (
            _HEAD.format(title=_text(f"{'! ' if view.wrong or view.set_aside else ''}{waiting}{name}")),
            f"<body>\n<header><h1>{_text(name)}</h1>\n{state}\n{_set_aside(view)}</header>\n<main>\n",
            _numbers(view),
            "<h2>Sites with mail, or at rest</h2>\n",
            _list((_site(line, view.now) for line in view.sites[:MOST_SITES]), "No mail is waiting."),
            f"<p class=dim>and {len(view.sites) - MOST_SITES} more</p>\n" if len(view.sites) > MOST_SITES else "",
            "<h2>Last troubles</h2>\n",
            _list((_trouble(trouble, view.now) for trouble in view.troubles), _NO_TROUBLES),
            "</main>\n",
            f"<footer><p><small>deferd {_text(view.version)}, {_moment(view.wall)}</small></p></footer>\n",
            "</body>\n</html>\n",
        )
    )


def _set_aside(view: Overview) -> str:
    """What a person has to see to: the mail in there is neither sent nor counted."""
    return "".join(
        '<p class="bad" role="alert"><strong>A damaged queue was set aside</strong>'
        f" as {_text(str(folder))}: deferd queue recover saves what can be read of it. This stays until the folder has"
        " been moved or removed.</p>\n"
        for folder in view.set_aside
    )


def _numbers(view: Overview) -> str:
    tiles: list[tuple[str, str]] = [
        ("waiting", _count(view.queued)),
        ("held", _count(view.held)),
        ("in flight", str(view.in_flight)),
        ("oldest", "–" if view.oldest is None else duration(view.now - view.oldest)),
        *((name, str(count)) for name, count in view.totals),
    ]
    inner = "".join(f"<div><dt>{_text(name)}</dt><dd>{value}</dd></div>\n" for name, value in tiles)
    return f"<dl>\n{inner}</dl>\n"


def _count(number: int | None) -> str:
    return "?" if number is None else str(number)


def _list(items: Iterable[str], nothing: str) -> str:
    inner = "".join(f"<li>{item}</li>\n" for item in items)
    return f"<ul>\n{inner}</ul>\n" if inner else f'<p class="dim">{nothing}</p>\n'


def _site(line: SiteLine, now: float) -> str:
    facts = []
    if line.rest_until is not None and line.rest_until > now:
        facts.append(f'<span class="bad">resting for {duration(line.rest_until - now)}</span>')
    if line.in_flight:
        facts.append(f"{line.in_flight} in flight" + (f" (at most {line.limit})" if line.limit else ""))
        if line.oldest_since is not None and now - line.oldest_since >= _LONG:
            facts.append(f"for {duration(now - line.oldest_since)} {_text(line.oldest)}")
    if line.due is not None:
        due = max(line.due, line.rest_until or line.due, line.next_at or line.due)
        facts.append(f"next in {duration(due - now)}" if due > now else "due now")
    if line.rate is not None:
        facts.append(f"at most {rate_in_words(line.rate)}")
    if line.why:
        facts.append(f'<span class="dim">{_text(line.why)}</span>')
    return f"<strong>{_text(line.site)}</strong><br>{', '.join(facts) or 'quiet'}"


def _trouble(trouble: Trouble, now: float) -> str:
    what = trouble.event.replace("_", " ")
    return (
        f"<strong>{_text(what)}</strong> {_text(trouble.subject)} "
        f"<small>{duration(now - trouble.at)} ago</small><br>{_text(trouble.text)}"
    )


def _text(text: str) -> str:
    """What somebody said, as HTML: nothing of it is markup, unseen, or turns the writing around."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return escape(text)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """Seconds in words as long as a person needs: "4 s", "3 min", "5 h", "2 d"."""
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
