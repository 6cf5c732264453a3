"""`deferd queue`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from deferred.reactor import Reactor
from service.cli import terminal
from service.journal import Journal
from service.message.job import Job
from service.message.outcome import Outcome, Phase, State
from service.queue.poke import POKE
from service.queue.sqlite import DATABASE, SQLiteStore
from service.queue.store import Settlement, Submission

ESCAPE = "\x1b[31m"


@contextmanager
def opened(spool: Path) -> Iterator[tuple[Reactor, SQLiteStore]]:
    """The daemon's store, for as long as the context lasts."""
    reactor = Reactor()
    store = SQLiteStore(spool / DATABASE, reactor, Journal(), Random(1))
    try:
        yield reactor, store
    finally:
        reactor.run_until_complete(store.close(), 10)


@pytest.fixture
def accept(spool: Path) -> Callable[..., list[str]]:
    """Put jobs for these recipients into the queue, each at the site of its domain; return the ids."""

    def accept(*recipients: str, name: str = "order") -> list[str]:
        submissions = [
            Submission(
                job=Job(
                    sender="ann@a.example",
                    recipients=tuple(one.split(",")),
                    content=b"Subject: x\r\n\r\n",
                    tags={"order": 17},
                ),
                name=f"{name}-{number}",
                sites=tuple(address.partition("@")[2] for address in one.split(",")),
            )
            for number, one in enumerate(recipients)
        ]
        with opened(spool) as (reactor, store):
            return [accepted.id for accepted in reactor.run_until_complete(store.accept(submissions), 10)]

    return accept


def states(deferd) -> dict[str, str]:
    """Each waiting job's state, by its name."""
    return {job["name"]: job["state"] for job in json.loads(deferd("queue", "list", "--json").stdout)}


def test_list_prints_an_array_as_in_results_oldest_first(deferd, accept):
    """With every key of the contract."""
    accept("bob@b.example", "cy@c.example,dan@d.example")
    result = deferd("queue", "list", "--json")
    assert result.exit_code == 0
    first, second = json.loads(result.stdout)
    assert [first["name"], second["name"]] == ["order-0", "order-1"]
    assert first.keys() == {
        "id", "name", "state", "attempts", "next_attempt", "recipients", "accepted_at", "finished_at", "tags",
    }  # fmt: skip
    assert second["recipients"][1]["address"] == "dan@d.example"
    assert first["tags"] == {"order": 17}


def test_list_can_be_narrowed(deferd, accept):
    """By site, by state, by number."""
    ids = accept("bob@b.example", "cy@c.example", "dan@c.example")
    deferd("queue", "hold", ids[2])
    names = lambda *options: [job["name"] for job in json.loads(deferd("queue", "list", "--json", *options).stdout)]  # noqa: E731
    assert names("--site", "c.example") == ["order-1", "order-2"]
    assert names("--state", "held") == ["order-2"]
    assert names("--site", "c.example", "--state", "queued") == ["order-1"]
    assert names("--limit", "1") == ["order-0"]
    assert deferd("queue", "list", "--state", "lost").exit_code == 2
    assert deferd("queue", "list", "--limit", "0").exit_code == 2


def test_list_is_aligned_text_where_no_terminal_is(deferd, accept):
    """A line a job under a line of titles; a hint where there may be more."""
    (one, two) = accept("bob@b.example", "cy@c.example,dan@d.example,eve@e.example")
    titles, first, second = deferd("queue", "list").stdout.splitlines()
    assert titles.split()[:3] == ["ID", "NAME", "STATE"]
    assert first.startswith(one)
    assert "cy@c.example and 2 more" in second
    assert two in second
    assert "--limit N shows more" in deferd("queue", "list", "--limit", "1").stderr


def test_an_empty_queue_is_told(deferd, accept):
    """An empty array for programs."""
    accept()
    assert deferd("queue", "list").stdout == "the queue is empty\n"
    assert deferd("queue", "list", "--json").stdout == "[]\n"


def test_show_tells_all_of_a_job(deferd, accept, spool):
    """What the server said is escaped, in text as in JSON."""
    (id,) = accept("bob@b.example")
    with opened(spool) as (reactor, store):
        (claim,) = reactor.run_until_complete(store.claim("b.example", 1), 10)
        outcome = Outcome(
            "bob@b.example", State.FAILED, 550, "5.1.1", f"no {ESCAPE}[bold]such[/bold] user", "mx:25", Phase.RCPT
        )
        settlement = Settlement(claim=claim, outcomes=(outcome,), at=reactor.wall_time(), attempts=1, due=None)
        reactor.run_until_complete(store.settle([settlement]), 10)
    text = deferd("queue", "show", id).stdout
    assert "state:        failed" in text
    assert "tags:         order=17" in text
    assert r"550 5.1.1 no \x1b[31m[bold]such[/bold] user" in text
    output = deferd("queue", "show", id, "--json").stdout
    assert output.isascii()
    assert "\x1b" not in output
    shown = json.loads(output)
    assert (shown["id"], shown["state"]) == (id, "failed")
    assert shown["recipients"][0]["code"] == 550


@pytest.mark.parametrize("command", ["show", "retry", "hold", "release", "remove"])
def test_an_unknown_job_is_told(deferd, accept, command):
    """Status 1, and nothing is changed, also for those named beside it."""
    (id,) = accept("bob@b.example")
    ids = ["nothing"] if command == "show" else [id, "nothing"]
    result = deferd("queue", command, *ids)
    assert result.exit_code == 1
    assert "nothing" in result.stderr
    assert states(deferd) == {"order-0": "queued"}


def test_jobs_are_held_released_and_removed(deferd, accept):
    """By id, by site, and all; each command says how many it changed."""
    ids = accept("bob@b.example", "cy@c.example", "dan@c.example")
    assert deferd("queue", "hold", ids[0]).stdout == "held 1 job\n"
    assert states(deferd) == {"order-0": "held", "order-1": "queued", "order-2": "queued"}
    assert json.loads(deferd("queue", "hold", "--site", "c.example", "--json").stdout) == {"changed": 2}
    assert set(states(deferd).values()) == {"held"}
    assert deferd("queue", "release", "--all").stdout == "released 3 jobs\n"
    assert set(states(deferd).values()) == {"queued"}
    assert deferd("queue", "remove", ids[1], ids[2]).stdout == "removed 2 jobs\n"
    assert list(states(deferd)) == ["order-0"]


def test_retry_makes_jobs_due_now(deferd, accept, spool):
    """However far off the next attempt was."""
    (id,) = accept("bob@b.example")
    with opened(spool) as (reactor, store):
        (claim,) = reactor.run_until_complete(store.claim("b.example", 1), 10)
        now = reactor.wall_time()
        outcome = Outcome("bob@b.example", State.WAITING, 450, "", "later", "mx:25", Phase.RCPT)
        settlement = Settlement(claim=claim, outcomes=(outcome,), at=now, attempts=1, due=now + 5000)
        reactor.run_until_complete(store.settle([settlement]), 10)
    before = json.loads(deferd("queue", "show", id, "--json").stdout)["next_attempt"]
    assert deferd("queue", "retry", id).stdout == "made due 1 job\n"
    after = json.loads(deferd("queue", "show", id, "--json").stdout)["next_attempt"]
    assert after < before
    with opened(spool) as (reactor, store):
        assert len(reactor.run_until_complete(store.claim("b.example", 1), 10)) == 1


@pytest.mark.parametrize("which", [(), ("an-id", "--all"), ("--all", "--site", "b.example"), ("an-id", "--site", "b")])
def test_which_jobs_must_be_said_once(deferd, accept, which):
    """Never all by mistake."""
    accept("bob@b.example")
    assert deferd("queue", "remove", *which).exit_code == 2
    assert states(deferd) == {"order-0": "queued"}


def test_a_running_daemon_is_poked(deferd, accept, spool):
    """After a change, and not for a look."""
    accept("bob@b.example")
    deferd("queue", "list")
    assert not (spool / POKE).exists()
    deferd("queue", "hold", "--all")
    assert (spool / POKE).exists()


@pytest.mark.parametrize("arguments", [("list",), ("show", "x"), ("retry", "--all")])
def test_a_missing_queue_is_told(deferd, spool, arguments):
    """No directory, or none that a daemon has worked in; none is made."""
    result = deferd("queue", *arguments)
    assert result.exit_code == 1
    assert "no deferd has worked in this directory yet" in result.stderr
    (spool / "new").rmdir()
    spool.rmdir()
    result = deferd("queue", *arguments)
    assert result.exit_code == 1
    assert f"there is no queue at {spool}" in result.stderr
    assert not spool.exists()


def test_no_password_is_needed(deferd, accept, spool):
    """The configuration of these tests has a password file that nobody can read."""
    accept("bob@b.example")
    assert deferd("queue", "list").exit_code == 0


def test_a_table_on_a_terminal_takes_nothing_for_markup(monkeypatch, capsys):
    """What a stranger said stays text: brackets as they are, escapes spelled out."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    terminal.print_table(("answer",), [(f"[red]no[/red] {ESCAPE}",)])
    assert r"[red]no[/red] \x1b[31m" in capsys.readouterr().out


def test_json_has_nothing_that_a_terminal_acts_on(capsys):
    """Neither C1 controls nor DEL nor what turns the writing around."""
    value = {"text": f"{ESCAPE}\x7f\x9b\u202eä"}
    terminal.print_json(value)
    output = capsys.readouterr().out
    assert output.isascii()
    assert output.rstrip("\n").isprintable()
    assert json.loads(output) == value


def test_help_is_there_for_every_command(spool):
    """Each loads, and says what it does."""
    from service.cli import cli

    runner = CliRunner()
    for words in ([], ["run"], ["demo"], ["send"], ["queue"], ["queue", "list"], ["queue", "retry"], ["check"]):
        result = runner.invoke(cli, [*words, "--help"])
        assert result.exit_code == 0
        assert "Usage: " in result.stdout
    assert runner.invoke(cli, ["--version"]).stdout.startswith("deferd ")
    assert runner.invoke(cli, ["nonsense"]).exit_code == 2
