"""`deferd queue`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from service.cli import terminal
from service.message.outcome import Outcome, Phase, State
from service.queue.lock import LOCK
from service.queue.poke import POKE
from service.queue.store import Pace, Rest, Settlement
from tests.cli.conftest import opened

ESCAPE = "\x1b[31m"


def claim(spool: Path, site: str) -> None:
    """Have one message of the site in flight."""
    with opened(spool) as (reactor, store):
        assert len(reactor.run_until_complete(store.claim(site, 1), 10)) == 1


def states(deferd) -> dict[str, str]:
    """Each waiting job's state, by its name."""
    return {job["name"]: job["state"] for job in json.loads(deferd("queue", "list", "--json").stdout)}


def test_list_prints_an_array_as_in_results_oldest_first(deferd, accept):
    """With every key of the contract, and what only the queue knows."""
    accept("bob@b.example", "cy@c.example,dan@d.example")
    result = deferd("queue", "list", "--json")
    assert result.exit_code == 0
    first, second = json.loads(result.stdout)
    assert [first["name"], second["name"]] == ["order-0", "order-1"]
    assert first.keys() == {
        "id", "name", "state", "attempts", "next_attempt", "recipients", "accepted_at", "finished_at", "tags",
        "in_flight", "priority", "waits",
    }  # fmt: skip
    assert (first["state"], first["in_flight"], first["priority"]) == ("queued", False, "normal")
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
    titles, first, second, *_ = deferd("queue", "list").stdout.splitlines()
    assert titles.split()[:3] == ["ID", "NAME", "STATE"]
    assert first.startswith(one)
    assert "cy@c.example and 2 more" in second
    assert two in second
    assert "--limit N shows more" in deferd("queue", "list", "--limit", "1").stderr


def test_list_ends_with_what_waits_at_each_site(deferd, accept):
    """In the whole queue, however little of it is shown; or at the site that was asked for."""
    accept("bob@b.example", "cy@c.example", "dan@c.example")
    lines = deferd("queue", "list", "--limit", "1").stdout.splitlines()
    assert [line.split()[:5] for line in lines[4:6]] == [
        ["c.example", "2", "2", "0", "0"],
        ["b.example", "1", "1", "0", "0"],
    ]
    assert lines[3].split() == ["SITE", "WAITING", "DUE", "NOW", "IN", "FLIGHT", "HELD", "NEXT", "DUE", "RESTS"]
    assert lines[6:] == ["jobs: 3 queued"]
    lines = deferd("queue", "list", "--site", "b.example").stdout.splitlines()
    assert [line.split()[0] for line in lines[4:]] == ["b.example"]
    assert "c.example" in deferd("queue", "list", "--state", "failed").stdout


def test_list_shows_some_sites_and_count_all(deferd, accept):
    """So that the jobs above them stay in sight."""
    accept(*(f"bob@{n}.example" for n in range(23)))
    assert "and 3 more sites: `deferd queue count` shows them" in deferd("queue", "list").stdout
    assert sum(".example" in line for line in deferd("queue", "count").stdout.splitlines()) == 23


def test_list_shows_what_is_being_sent(deferd, accept, spool):
    """In words; for programs the state is as in results, with a member beside it."""
    accept("bob@b.example", "cy@c.example")
    claim(spool, "b.example")
    _, first, second, *_ = deferd("queue", "list").stdout.splitlines()
    assert (first.split()[2], second.split()[2]) == ("sending", "queued")
    deferd("queue", "hold", "--all")
    _, first, second, *_ = deferd("queue", "list").stdout.splitlines()
    assert "held, sending" in first
    assert second.split()[2] == "held"
    jobs = json.loads(deferd("queue", "list", "--json").stdout)
    assert [(job["state"], job["in_flight"]) for job in jobs] == [("held", True), ("held", False)]


def test_what_was_being_sent_when_the_daemon_died_is_interrupted(deferd, accept, spool):
    """Nothing is being sent where none runs."""
    ids = accept("bob@b.example", "cy@c.example")
    claim(spool, "b.example")
    leave_a_dead_daemon(spool)
    _, first, second, *_ = deferd("queue", "list").stdout.splitlines()
    assert (first.split()[2], second.split()[2]) == ("interrupted", "queued")
    assert deferd("queue", "show", ids[0]).stdout.count("interrupted") == 2
    deferd("queue", "hold", ids[0])
    assert "held, interrupted" in deferd("queue", "list").stdout


def leave_a_dead_daemon(spool: Path) -> None:
    """As one leaves the directory that was killed."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    (spool / LOCK).write_text(f"process {gone.pid} on {os.uname().nodename}\n")


def test_list_shows_priorities_where_one_is_not_normal(deferd, accept):
    """Else there is no column for them."""
    accept("bob@b.example")
    assert "PRIORITY" not in deferd("queue", "list").stdout
    accept("bob@b.example", name="news", priority="bulk")
    titles, first, second, *_ = deferd("queue", "list").stdout.splitlines()
    assert titles.split()[3] == "PRIORITY"
    assert (first.split()[3], second.split()[3]) == ("normal", "bulk")


def test_count_tells_each_site(deferd, accept, spool):
    """One object for programs: the jobs by their state, the sites with what waits, and their rest."""
    ids = accept("bob@b.example", "cy@c.example", "dan@c.example", "eve@c.example")
    deferd("queue", "hold", ids[1])
    with opened(spool) as (reactor, store):
        now = store.now()
        rest = Rest(site="c.example", ends=now + 3600, failures=2, since=now - 60, why=f"connect: {ESCAPE} refused")
        reactor.run_until_complete(store.notes.note_rest(rest), 10)
    claim(spool, "c.example")
    standing = json.loads(deferd("queue", "count", "--json").stdout)
    assert standing["jobs"] == {"queued": 3, "held": 1, "delivered": 0, "failed": 0, "partly": 0}
    first, second = standing["sites"]
    told = first.pop("rest")
    assert told["until"] > told["since"]
    assert (told["failures"], told["why"]) == (2, f"connect: {ESCAPE} refused")
    assert first.pop("next_due") is not None
    assert first == {"site": "c.example", "waiting": 1, "due_now": 0, "in_flight": 1, "held": 1, "rate": None}
    assert (second["site"], second["waiting"], second["rest"]) == ("b.example", 1, None)
    text = deferd("queue", "count").stdout
    assert rf"until {told['until']}; 2 failures since {told['since']}: connect: \x1b[31m refused" in text
    assert text.endswith("\njobs: 3 queued, 1 held\n")


def test_count_of_one_site(deferd, accept):
    """It is said where nothing waits there."""
    accept("bob@b.example", "cy@c.example")
    assert [
        one["site"] for one in json.loads(deferd("queue", "count", "--site", "c.example", "--json").stdout)["sites"]
    ] == ["c.example"]
    assert "b.example" not in deferd("queue", "count", "--site", "c.example").stdout
    assert deferd("queue", "count", "--site", "d.example").stdout == "no mail waits for d.example\n"


def test_a_sites_rate_is_told_where_there_is_one(deferd, accept, spool):
    """It is why mail waits that is due by itself; else there is no column for it."""
    (id,) = accept("bob@b.example")
    assert "AT MOST" not in deferd("queue", "count").stdout + deferd("queue", "show", id).stdout
    with opened(spool) as (reactor, store):
        pace = Pace(site="b.example", rate=0.5, next=store.now() + 3600)
        reactor.run_until_complete(store.notes.note_pace(pace), 10)
    (site,) = json.loads(deferd("queue", "count", "--json").stdout)["sites"]
    assert (site["rate"], site["due_now"]) == (0.5, 0)
    for command in (("list",), ("count",), ("show", id)):
        text = deferd("queue", *command).stdout
        assert "30 a minute" in text
        assert site["next_due"] in text


def test_sites_of_one_relay_are_named_where_it_is_asked_for(deferd, accept):
    """One that is reached in two ways is two sites, of which neither has the relay's own name."""
    accept("bob@mx.example:25/ann", "cy@mx.example:25/none")
    said = "no mail waits for mx.example:25, but for mx.example:25/ann, mx.example:25/none\n"
    assert deferd("queue", "count", "--site", "mx.example:25").stdout == said
    assert deferd("queue", "retry", "--site", "mx.example:25").stderr == f"deferd: {said}"


def test_a_rest_that_is_over_is_told_until_the_site_has_served(deferd, accept, spool):
    """It is to be tried, and nobody knows yet."""
    accept("bob@b.example")
    with opened(spool) as (reactor, store):
        rest = Rest(site="b.example", ends=store.now() - 1, failures=1, since=store.now() - 9, why="greeting: 421 busy")
        reactor.run_until_complete(store.notes.note_rest(rest), 10)
    text = deferd("queue", "count").stdout
    assert "no more, but has not served yet; 1 failure since " in text
    assert "greeting: 421 busy" in text


@pytest.mark.parametrize("command", [("list",), ("list", "--json"), ("count",)])
def test_a_damaged_queue_that_was_set_aside_is_told_until_it_is_gone(deferd, accept, spool, command):
    """On standard error, with what to do about it, also when it has been recovered."""
    accept("bob@b.example")
    assert deferd("queue", *command).stderr == ""
    folder = spool / "damaged-20260921T141320Z"
    folder.mkdir()
    told = deferd("queue", *command)
    assert told.exit_code == 0
    assert f"a damaged queue was set aside as {folder}: `deferd queue recover` saves what can be read" in told.stderr
    (folder / "recovered.json").write_text("{}")
    assert f"{folder}: recovered, as far as it could be; this is told until" in deferd("queue", *command).stderr
    (folder / "recovered.json").unlink()
    folder.rmdir()
    assert deferd("queue", *command).stderr == ""


def test_a_damaged_queue_is_told_also_where_the_new_one_cannot_be_read(deferd, spool):
    """That may be why somebody looks."""
    (spool / "damaged-20260921T141320Z").mkdir()
    result = deferd("queue", "list")
    assert result.exit_code == 1
    assert "no deferd has worked in this directory yet" in result.stderr
    assert "damaged-20260921T141320Z" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", [("list",), ("count",), ("show", "order-0"), ("retry", "order-0")])
def test_it_is_told_that_a_dead_daemon_sends_nothing(deferd, accept, spool, command):
    """What it had in flight stays so until the next one starts. Programs, which ask for JSON, are not told."""
    accept("bob@b.example")
    claim(spool, "b.example")
    assert deferd("queue", *command).stderr == ""
    leave_a_dead_daemon(spool)
    assert "no daemon is running in" in deferd("queue", *command).stderr
    assert deferd("queue", *command, "--json").stderr == ""


def test_an_empty_queue_is_told(deferd, accept):
    """An empty array for programs."""
    accept()
    assert deferd("queue", "list").stdout == "the queue is empty\n"
    assert deferd("queue", "list", "--json").stdout == "[]\n"
    assert deferd("queue", "count").stdout == "the queue is empty\n"
    assert json.loads(deferd("queue", "count", "--json").stdout)["sites"] == []


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


def test_show_tells_what_results_do_not(deferd, accept, spool):
    """The envelope's sender, the size, what goes first, the key, when it is given up, and each site."""
    accept("cy@c.example,bob@b.example", priority="high", key="order-17", in_doubt="hold", expires=86400.0)
    claim(spool, "b.example")
    (listed,) = json.loads(deferd("queue", "list", "--json").stdout)
    job = json.loads(deferd("queue", "show", listed["id"], "--json").stdout)
    assert {name: job[name] for name in listed} == listed
    assert (job["sender"], job["size"], job["priority"]) == ("ann@a.example", 14, "high")
    assert (job["key"], job["in_doubt"], job["expires_at"] > job["accepted_at"]) == ("order-17", "hold", True)
    assert [(site["site"], site["state"]) for site in job["sites"]] == [
        ("c.example", "waiting"), ("b.example", "in_flight"),
    ]  # fmt: skip
    text = deferd("queue", "show", listed["id"]).stdout
    facts = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    assert {name: value.strip() for name, value in facts.items()} == {
        "id": job["id"], "name": "order-0", "state": "sending", "priority": "high", "attempts": "0",
        "sender": "ann@a.example", "size": "14 octets", "accepted": job["accepted_at"],
        "expires": job["expires_at"], "in doubt": "hold", "key": "order-17",
        "tags": "order=17",
    }  # fmt: skip
    assert [line.split()[:2] for line in text.splitlines() if line.startswith(("b.example", "c.example"))] == [
        ["c.example", "waiting"], ["b.example", "sending"],
    ]  # fmt: skip


def test_show_tells_how_often_somebody_may_have_got_it(deferd, accept, spool):
    """Before it is released to be sent again."""
    (id,) = accept("bob@b.example", in_doubt="hold")
    with opened(spool) as (reactor, store):
        (one,) = reactor.run_until_complete(store.claim("b.example", 1), 10)
        settlement = Settlement(
            claim=one, outcomes=(), at=store.now(), attempts=1, due=store.now(), hold=True, doubt=True
        )
        reactor.run_until_complete(store.settle([settlement]), 10)
    assert "b.example  held, perhaps delivered (1 in doubt)" in deferd("queue", "show", id).stdout


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


@pytest.mark.parametrize(
    ("first", "command", "done", "why"),
    [
        ("hold", "retry", "made due 0 jobs", "held: release it first"),
        ("hold", "hold", "held 0 jobs", "held already"),
        ("retry", "release", "released 0 jobs", "not held"),
    ],
)
def test_a_change_that_changes_nothing_says_why(deferd, accept, first, command, done, why):
    """On standard error, with status 0; programs find it beside the count."""
    (id,) = accept("bob@b.example")
    deferd("queue", first, id)
    result = deferd("queue", command, id)
    assert (result.exit_code, result.stdout) == (0, f"{done}\n")
    assert result.stderr == f"deferd: {id} unchanged, {why}\n"
    assert json.loads(deferd("queue", command, id, "--json").stdout) == {"changed": 0, "unchanged": {id: why}}


def test_a_change_of_many_says_why_where_that_is_of_interest(deferd, accept):
    """`retry` leaves held jobs alone, which who asks for all may not expect; `release` is meant for the held ones."""
    ids = accept("bob@b.example", "cy@c.example", "dan@c.example")
    deferd("queue", "hold", ids[0], ids[1])
    assert deferd("queue", "retry", "--all").stderr == "deferd: 2 jobs unchanged, held: release them first\n"
    assert deferd("queue", "hold", "--site", "b.example").stderr == "deferd: 1 job unchanged, held already\n"
    assert deferd("queue", "release", "--site", "c.example").stderr == ""
    assert deferd("queue", "release", "--site", "c.example").stderr == "deferd: 2 jobs unchanged, not held\n"
    assert deferd("queue", "retry", "--site", "d.example").stderr == "deferd: no mail waits for d.example\n"
    deferd("queue", "remove", "--all")
    assert deferd("queue", "remove", "--all").stderr == "deferd: no mail waits\n"


def test_a_job_that_has_ended_cannot_be_changed_and_it_is_said_how(deferd, accept):
    """With status 1, as for any that is not in the queue."""
    (id,) = accept("bob@b.example")
    deferd("queue", "remove", id)
    result = deferd("queue", "retry", id)
    assert result.exit_code == 1
    assert result.stderr == f"deferd: {id} is not in the queue: it has ended (failed)\ndeferd: nothing was changed\n"


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


def test_a_table_on_a_narrow_terminal_has_whole_words(monkeypatch, capsys):
    """The terminal breaks the lines: an id, a site or a time in two pieces could not be copied."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    row = ("03fry42qhzm8", "order-17", "smtp.provider.example:587", "2026-11-26T13:45:19.992Z", "no " * 100)
    terminal.print_table(("id", "name", "site", "next attempt", "last answer"), [row])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    first = next(line for line in lines if row[0] in line)
    assert all(word in first for word in row[:-1])
    assert max(map(len, lines)) < 150  # what a server said is folded


def test_list_tells_why_a_job_waits_or_has_failed(deferd, accept, spool):
    """Not that another of its recipients was served."""
    accept("cy@b.example,bob@b.example,dan@c.example")

    def settle(*states: State) -> str:
        with opened(spool) as (reactor, store):
            (claim,) = reactor.run_until_complete(store.claim("b.example", 1), 10)
            outcomes = tuple(
                Outcome(address, state, 250, "", f"said to {address[:3]}", "mx:25", Phase.RCPT)
                for address, state in zip(claim.recipients, states, strict=True)
            )
            due = None if State.WAITING not in states else store.now() - 1
            reactor.run_until_complete(
                store.settle([Settlement(claim=claim, outcomes=outcomes, at=store.now(), attempts=1, due=due)]), 10
            )
        return deferd("queue", "list").stdout.splitlines()[1]

    assert settle(State.DELIVERED, State.WAITING).endswith("due now       250 said to bob")
    assert settle(State.FAILED).endswith("due now")  # nothing was said yet of the third, who waits
    assert "  dan@c.example and 2 more  " in deferd("queue", "list").stdout
    deferd("queue", "hold", "--all")
    assert deferd("queue", "list").stdout.splitlines()[1].endswith("  waits for an operator: release or remove it")
    deferd("queue", "remove", "--all")
    assert "250 said to bob" in deferd("queue", "list", "--state", "partly").stdout


@pytest.mark.parametrize("change", ["retry", "hold", "remove"])
def test_a_change_takes_the_name_of_a_result_as_show_does(deferd, accept, spool, change):
    """What the running daemon logs of it is the id."""
    (id, other) = accept("bob@b.example", "cy@c.example")
    assert deferd("queue", change, "order-0").stdout.endswith(" 1 job\n")
    assert json.loads((spool / POKE).read_text().splitlines()[-1])["ids"] == [id]
    assert json.loads(deferd("queue", "show", other, "--json").stdout)["state"] == "queued"


@pytest.mark.parametrize("change", ["hold", "remove"])
def test_it_is_said_that_what_is_being_sent_may_arrive(deferd, accept, spool, change):
    """It cannot be called back, though it is held, or removed."""
    accept("bob@b.example", "cy@c.example")
    claim(spool, "b.example")
    said = "deferd: being sent at this moment, and may arrive: 1 job\n"
    assert deferd("queue", change, "--site", "c.example").stderr == ""
    assert deferd("queue", change, "order-0").stderr == said


@pytest.mark.parametrize("arguments", [("show",), ("retry",)])
@pytest.mark.parametrize("name", ["order", "order.json"])
def test_a_file_that_is_no_job_yet_or_was_none_is_found(deferd, accept, spool, arguments, name):
    """It is what somebody looks for who has dropped it."""
    accept("bob@b.example")
    (spool / "new" / "order.json").write_text("{")
    result = deferd("queue", *arguments, name)
    assert result.exit_code == 1
    assert f": its file is still at {spool}/new/order.json, and is taken once a daemon runs" in result.stderr
    (spool / "new" / "order.json").unlink()
    (spool / "rejected").mkdir()
    (spool / "rejected" / "order.json.why").write_text("no")
    assert (
        f": its file was rejected, and {spool}/rejected/order.json.why says why"
        in deferd("queue", *arguments, name).stderr
    )
    assert ": its file" not in deferd("queue", *arguments, "orde").stderr


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
