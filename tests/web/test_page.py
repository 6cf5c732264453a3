"""The page: what a person sees, and that nothing seen can do harm."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deferred.defer import Deferred, succeed
from deferred.testing import Clock
from service.delivery.sites import SiteView, UnderWay
from service.journal import Journal
from service.queue.store import Counts, SiteBacklog
from service.web.exchange import Request, Response
from service.web.faces import faces
from service.web.metrics import Metrics
from service.web.page import Overview, SiteLine, duration, page
from service.web.recent import TROUBLES, Recent, Trouble
from service.web.sitelines import site_lines

NOW = 1_700_000_000.0


class Reader(HTMLParser):
    """The page as a browser takes it: its text, and every element and attribute."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(response.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] != "style":
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


def read(**facts: Any) -> Reader:
    return Reader(page(Overview(version="1.2.3", now=NOW, wall=NOW, **facts)))


def test_it_shows_the_numbers() -> None:
    """What waits, what is held, what is in flight, and since when."""
    text = read(queued=17, held=3, in_flight=5, oldest=NOW - 7200, totals=[("delivered", 42)]).text
    for part in ("waiting 17", "held 3", "in flight 5", "oldest 2 h", "delivered 42", "1.2.3"):
        assert part in text


def test_it_says_what_is_wrong_first() -> None:
    """A daemon that is not at its work says so before anything else, and in the title."""
    reader = read(wrong="the store cannot commit")
    assert "Not working: the store cannot commit" in reader.text
    assert reader.text.startswith("! ")
    assert "Not working" not in read().text


def test_it_tells_of_damaged_queues_that_were_set_aside() -> None:
    """Each with what to do about it, while the daemon is at its work all the same."""
    text = read(set_aside=[Path("/spool/damaged-1"), Path("/spool/damaged-2")]).text
    assert text.startswith("! ")
    for folder in ("/spool/damaged-1", "/spool/damaged-2"):
        assert f"A damaged queue was set aside as {folder}: deferd queue recover saves what can be read of it." in text
    assert "Working." in text
    assert "damaged" not in read().text


def test_sites_tell_their_rest_and_their_backlog() -> None:
    """Who rests and why, who is due when."""
    text = read(
        sites=[
            SiteLine(site="relay-a", due=NOW - 5, in_flight=4),
            SiteLine(site="relay-c", due=NOW - 5, in_flight=4, limit=10),
            SiteLine(site="relay-b", due=NOW + 300, rest_until=NOW + 125, why="connect: refused"),
            SiteLine(site="relay-d", due=NOW - 5, rest_until=NOW + 125, why="connect: refused"),
        ]
    ).text
    assert "next in 2 min" in text.partition("relay-d")[2]
    assert "relay-a 4 in flight, due now" in text
    assert "relay-c 4 in flight (at most 10), due now" in text
    assert "relay-b resting for 2 min" in text
    assert "next in 5 min" in text
    assert "connect: refused" in text


def test_a_line_has_what_delivery_knows_of_a_site() -> None:
    """All of it."""
    oldest = UnderWay(id="00v03f", since=6.0, step="greeting at mx:25")
    view = SiteView(
        name="relay-a", health="resting", resting_until=1.0, in_flight=2, limit=3, rate=4.0, next_at=5.0,
        last_error="421", oldest=oldest,
    )  # fmt: skip
    line = SiteLine(
        site="relay-a", rest_until=1.0, in_flight=2, limit=3, rate=4.0, next_at=5.0, why="421",
        oldest="00v03f: greeting at mx:25", oldest_since=6.0,
    )  # fmt: skip
    assert site_lines([view]) == [line]
    assert site_lines([msgspec.structs.replace(view, oldest=None)]) == [
        msgspec.structs.replace(line, oldest="", oldest_since=None)
    ]


def test_a_message_that_is_in_flight_for_long_is_named() -> None:
    """With what it waits for: a server that hangs looks like one that is busy, else."""
    facts = {"site": "relay-a", "in_flight": 2, "limit": 5, "oldest": "00v03f: greeting at mx<1>:25"}
    text = read(sites=[SiteLine(**facts, oldest_since=NOW - 240)]).text
    assert "relay-a 2 in flight (at most 5), for 4 min 00v03f: greeting at mx<1>:25" in text
    assert "greeting" not in read(sites=[SiteLine(**facts, oldest_since=NOW - 1)]).text


def test_a_site_that_has_a_rate_tells_it() -> None:
    """It is why mail that is due waits."""
    text = read(sites=[SiteLine(site="relay-a", due=NOW - 5, rate=0.5)]).text
    assert "relay-a due now, at most 30 a minute" in text
    line = SiteLine(site="relay-a", due=NOW - 5, rate=0.5, next_at=NOW + 9)
    assert "relay-a next in 9 s, at most 30 a minute" in read(sites=[line]).text


def test_a_thousand_sites_do_not_make_it_long() -> None:
    """The first fifty, and how many more there are."""
    reader = read(sites=[SiteLine(site=f"site-{n}", due=NOW) for n in range(1000)])
    assert reader.tags.count("li") == 50
    assert "and 950 more" in reader.text


EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


def test_nothing_that_a_server_or_a_file_said_becomes_markup() -> None:
    """Every text is escaped, wherever it stands."""
    harmless = read(
        queued=1,
        hostname="h",
        wrong="w",
        set_aside=["d"],
        totals=[("t", 1)],
        sites=[SiteLine(site="s", why="y")],
        troubles=[Trouble(NOW, "failed", "x", "y")],
    )
    reader = read(
        queued=1,
        hostname=EVIL,
        wrong=EVIL,
        set_aside=[EVIL],
        totals=[(EVIL, 1)],
        sites=[SiteLine(site=EVIL, why=EVIL)],
        troubles=[Trouble(NOW, EVIL, EVIL, EVIL)],
    )
    assert reader.tags == harmless.tags
    assert reader.attributes == harmless.attributes
    assert reader.text.count("alert(1)") >= 9


UNSEEN = "\x1b[2J\0\x7f\x9b\u202e\u200b\ufeff\r\n"
SPELT = r"\x1b[2J\x00\x7f\x9b\u202e\u200b\ufeff\r\n"


def test_nothing_unseen_is_left_in_what_was_said() -> None:
    """Controls, what turns the writing around and what has no width are spelt out."""
    view = Overview(
        version="1",
        now=NOW,
        wall=NOW,
        hostname=UNSEEN,
        wrong=UNSEEN,
        set_aside=[UNSEEN],
        sites=[SiteLine(site=UNSEEN, why=UNSEEN)],
        troubles=[Trouble(NOW, UNSEEN, UNSEEN, UNSEEN)],
    )
    html = page(view).body.decode()
    assert all(line.isprintable() for line in html.split("\n"))
    assert html.count(SPELT) == 9


def test_it_needs_nothing_but_itself() -> None:
    """No script, nothing from elsewhere, and a policy that allows its own style only."""
    response = page(Overview(version="1", now=NOW, wall=NOW))
    reader = Reader(response)
    assert not {"script", "link", "img", "iframe", "form", "a"} & set(reader.tags)
    assert not {"src", "href", "style", "onclick"} & reader.attributes
    style = re.search(rb"<style>(.*?)</style>", response.body, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1)).digest()).decode()
    policy = dict(response.headers)["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert len(response.body) < 8000


def test_text_that_is_no_unicode_does_not_break_it() -> None:
    """A file's name may hold what no encoding can."""
    assert r"name\udcff.eml" in read(troubles=[Trouble(NOW, "job_rejected", "name\udcff.eml", "")]).text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_a_duration_is_as_long_as_a_person_needs(seconds: float, words: str) -> None:
    """One number and one unit."""
    assert duration(seconds) == words


class FakeStore:
    """A store to be looked at."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.healthy = True
        self.looks = 0
        self.broken = False

    def count(self) -> Counts:
        self.looks += 1
        if self.broken:
            raise OSError("disk on fire")
        return Counts(9, 2, NOW)

    def backlog(self) -> list[SiteBacklog]:
        return [SiteBacklog("quiet-site", NOW), SiteBacklog("resting-site", NOW)]

    def probe(self) -> Deferred[None]:
        return succeed(None)


class World:
    """The faces of a daemon."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock.wall_time)
        self.reason: str | None = None
        self.damaged: list[Path] = []
        self.unreadable = False
        self.metrics = Metrics(self.clock, "1.2.3", self.store.count, lambda: 4)
        self.recent = Recent(self.clock.wall_time)
        self.journal = Journal(self.metrics)
        self.journal.add(self.recent, TROUBLES)
        self.handlers = faces(
            self.clock,
            self.store,
            self.metrics,
            self.recent,
            version="1.2.3",
            in_flight=lambda: 4,
            sites=self.sites,
            hostname=lambda: "mail.test",
            set_aside=self.set_aside,
            unready=lambda: self.reason,
        )

    def sites(self) -> list[SiteLine]:
        rest = self.clock.wall_time() + 60
        return [SiteLine(site="resting-site", rest_until=rest, why="421"), SiteLine(site="idle-site")]

    def set_aside(self) -> list[Path]:
        if self.unreadable:
            raise PermissionError(13, "Permission denied")
        return self.damaged

    def page(self) -> str:
        response = self.handlers["/"](Request("GET", "/"))
        assert isinstance(response, Response)
        return Reader(response).text


@pytest.fixture
def world() -> World:
    return World()


def test_there_is_a_face_for_each_path(world: World) -> None:
    """The contract's four."""
    assert set(world.handlers) == {"/healthz", "/readyz", "/metrics", "/"}


def test_the_page_joins_the_queue_and_the_delivery(world: World) -> None:
    """Sites that rest come first, sites without anything to tell not at all."""
    world.journal.tell("delivered", id="1", recipient="ann@a.example")
    text = world.page()
    assert "waiting 7" in text
    assert "held 2" in text
    assert "delivered 1" in text
    assert text.index("resting-site") < text.index("quiet-site")
    assert "idle-site" not in text
    assert "Sites with mail, or at rest" in text
    assert "mail.test" in text


def test_the_last_troubles_are_shown_newest_first(world: World) -> None:
    """Failures with who, where and why; what went well is none."""
    world.journal.tell("delivered", id="j0", recipient="ok@a.example")
    world.journal.tell(
        "failed", id="j1", recipient="bob@b.example", host="mx:25", phase="rcpt", code=550, text="no such"
    )
    world.clock.advance(300)
    world.journal.tell("job_rejected", name="odd.eml", why="no recipient")
    text = world.page()
    assert "failed j1 bob@b.example mx:25 5 min ago rcpt 550 no such" in text
    assert text.index("odd.eml") < text.index("bob@b.example")
    assert "j0" not in text


def test_of_a_traceback_the_page_shows_what_was_raised(world: World) -> None:
    """The rest is in the log."""
    error = "Traceback (most recent call last):\n  File ...\nRuntimeError: out of cheese\n"
    world.journal.tell("unhandled_error", where="scheduler", error=error)
    assert "unhandled error scheduler 0 s ago RuntimeError: out of cheese" in world.page()


def test_what_is_decided_stands_apart_from_what_was_said(world: World) -> None:
    """However long that was."""
    world.journal.tell("in_doubt", id="j1", phase="confirm", text="the server closed the connection", decision="retry")
    assert "confirm the server closed the connection · decision: retry" in world.page()
    world.journal.tell("in_doubt", id="j2", phase="confirm", text="x" * 1000, decision="hold")
    assert "xxx… · decision: hold" in world.page()


def test_the_problems_of_a_reload_stand_apart(world: World) -> None:
    """Each has its line in the log."""
    world.journal.tell("reload_failed", why="deferd.yaml:1: a: is empty\ndeferd.yaml:2: b: is empty")
    assert "deferd.yaml:1: a: is empty · deferd.yaml:2: b: is empty" in world.page()


def test_a_dead_site_does_not_crowd_out_the_failures(world: World) -> None:
    """Its rests stand beside it, not among the troubles."""
    world.journal.tell("failed", id="j1", recipient="bob@b.example")
    for _ in range(100):
        world.journal.tell("site_resting", site="relay", phase="connect", text="refused")
    assert [trouble.event for trouble in world.recent.troubles()] == ["failed"]
    assert "None since the start, but for sites that rest: they stand above." in read().text


def test_only_the_last_troubles_are_kept() -> None:
    """A storm of failures takes no more memory than twenty, and long words are cut."""
    recent = Recent(lambda: NOW)
    for n in range(1000):
        recent("failed", {"id": str(n), "text": "x" * 10_000})
    troubles = recent.troubles()
    assert [trouble.subject for trouble in troubles] == [str(n) for n in range(999, 979, -1)]
    assert max(len(trouble.text) for trouble in troubles) == 300


def test_looking_often_does_not_burden_the_store(world: World) -> None:
    """One look a second serves everybody."""
    for _ in range(10):
        world.page()
    assert world.store.looks == 1
    world.clock.advance(1)
    world.page()
    assert world.store.looks == 2


def test_the_page_survives_its_store(world: World) -> None:
    """It is wanted most when the store is broken, and says so."""
    world.store.broken = True
    text = world.page()
    assert "Not working: the store cannot be read" in text
    assert "waiting ?" in text
    assert "resting-site" in text


def test_the_page_says_why_the_daemon_is_not_at_its_work(world: World) -> None:
    """Draining, or a store that cannot commit."""
    world.store.healthy = False
    assert "Not working: the store cannot commit" in world.page()
    world.reason = "draining"
    assert "Not working: draining" in world.page()


def test_a_damaged_queue_is_told_of_until_its_folder_is_gone(world: World) -> None:
    """It is looked for anew, a second later at the latest."""
    assert "damaged" not in world.page()
    world.damaged = ["/spool/damaged-1"]
    world.clock.advance(1)
    assert "set aside as /spool/damaged-1" in world.page()
    world.damaged = []
    world.clock.advance(1)
    assert "damaged" not in world.page()


def test_where_damaged_queues_cannot_be_looked_for_the_page_says_so(world: World) -> None:
    """It is there all the same."""
    world.unreadable = True
    assert "Not working: the queue's directory cannot be read: Permission denied" in world.page()
