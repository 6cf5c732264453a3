"""`deferd send`."""

from __future__ import annotations

import json
import os
import pwd
import stat
from pathlib import Path

import pytest

from service.cli.drop import DropError, drop
from service.message.job import Job
from service.message.read import ReadingRules, read_job

MESSAGE = "From: Ann <ann@a.example>\nTo: bob@b.example\nCc: cy@c.example\nSubject: Hello\n\nText.\n"


def dropped(spool: Path) -> list[Job]:
    """The jobs in new/, as the daemon reads them."""
    jobs = []
    for path in sorted((spool / "new").iterdir()):
        assert not path.name.startswith(".")
        rules = ReadingRules("client.example")
        jobs.append(
            read_job(
                path.name,
                path.read_bytes(),
                rules=rules,
                now=0.0,
                unique=lambda: "unique",
                open_attachment=lambda _: b"",
            )
        )
    return jobs


def test_a_message_on_standard_input_becomes_a_job(deferd, spool):
    """Its name is printed, and is that of the file, and so of the result to come."""
    result = deferd("send", input=MESSAGE)
    assert result.exit_code == 0
    assert [path.name for path in (spool / "new").iterdir()] == [result.stdout.strip() + ".eml"]
    (job,) = dropped(spool)
    assert (job.sender, job.recipients) == ("ann@a.example", ("bob@b.example", "cy@c.example"))


def test_recipients_given_are_the_only_ones(deferd, spool):
    """The header is left alone, the sender is the message's own."""
    assert deferd("send", "dan@d.example", "eve@e.example", input=MESSAGE).exit_code == 0
    (job,) = dropped(spool)
    assert (job.sender, job.recipients) == ("ann@a.example", ("dan@d.example", "eve@e.example"))
    assert b"To: bob@b.example\r\nCc: cy@c.example\r\n" in job.content


@pytest.mark.parametrize(
    "top",
    [
        "X-Receiver: mallory@m.example\n",
        "x-receiver : mallory@m.example\nX-SENDER: mallory@m.example\n",
        "X-Sender: mallory@m.example\nX-Receiver: mallory@m.example,\n malice@m.example\n",
    ],
)
def test_the_message_cannot_add_recipients_to_those_given(deferd, spool, top):
    """Lines of an envelope at its own top are taken off."""
    assert deferd("send", "dan@d.example", input=top + MESSAGE).exit_code == 0
    assert deferd("send", "-t", input=top + MESSAGE).exit_code == 0
    given, from_header = sorted(dropped(spool), key=lambda job: len(job.recipients))
    assert (given.sender, given.recipients) == ("ann@a.example", ("dan@d.example",))
    assert (from_header.sender, from_header.recipients) == ("ann@a.example", ("bob@b.example", "cy@c.example"))
    assert b"mallory" not in given.content + from_header.content


@pytest.mark.parametrize("top", [" , mallory@m.example\n", "\t<mallory@m.example>\n"])
def test_a_message_that_would_go_on_our_last_line_is_refused(deferd, spool, top):
    """A first line that begins with a space would be a part of the last recipient's."""
    result = deferd("send", "-f", "ann@a.example", "dan@d.example", input=top + MESSAGE)
    assert result.exit_code == 1
    assert dropped(spool) == []


def test_the_lines_at_the_top_count_where_no_recipient_is_given(deferd, spool):
    """As in a file that is dropped by hand; -f replaces the sender's."""
    top = "X-Sender: old@a.example\nX-Receiver: dan@d.example\n"
    assert deferd("send", input=top + MESSAGE).exit_code == 0
    assert deferd("send", "-f", "new@a.example", input=top + MESSAGE).exit_code == 0
    jobs = dropped(spool)
    assert sorted(job.sender for job in jobs) == ["new@a.example", "old@a.example"]
    assert {job.recipients for job in jobs} == {("dan@d.example",)}


@pytest.mark.parametrize("sender", ["", "<>"])
def test_the_null_sender_can_be_given(deferd, spool, sender):
    """For mail that must not bounce."""
    assert deferd("send", "-f", sender, "dan@d.example", input="Text, without a header.\n").exit_code == 0
    assert dropped(spool)[0].sender == ""


def test_an_international_address_is_taken(deferd, spool):
    """The lines at the top may hold UTF-8."""
    assert deferd("send", "-f", "jürgen@bücher.example", "dan@d.example", input=MESSAGE).exit_code == 0
    assert dropped(spool)[0].sender == "jürgen@bücher.example"


def test_each_file_is_a_job(deferd, spool, tmp_path):
    """An argument with an @ is a file where there is one of that name."""
    first, second, job = tmp_path / "one@home.eml", tmp_path / "two.eml", tmp_path / "three.json"
    for path in (first, second):
        path.write_text(MESSAGE)
    job.write_text('{"from": "ann@a.example", "to": ["bob@b.example"], "subject": "s", "text": "t"}')
    result = deferd("send", "--json", first, second, job)
    assert result.exit_code == 0
    names = [entry["name"] for entry in json.loads(result.stdout)]
    files = {path.stem: path.suffix for path in (spool / "new").iterdir()}
    assert [files[name] for name in names] == [".eml", ".eml", ".json"]
    assert len(dropped(spool)) == 3


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        ((), "", 1),
        ((), "\n\n", 1),
        ((), "Subject: to nobody\n\nText.\n", 1),
        ((), "From: a@a.example\nTo: b@b.example\n\n\0\n", 1),
        (("-f", "a@a.example", *(f"{n}@b.example" for n in range(6))), MESSAGE, 1),
        (("dan@d.example",), "x" * 1_100_000, 1),
        (("dan@",), MESSAGE, 2),
        (("-f", "ann", "dan@d.example"), MESSAGE, 2),
        (("-t", "dan@d.example"), MESSAGE, 2),
        (("/no/such/file.eml",), MESSAGE, 2),
        (("--bad",), MESSAGE, 2),
        (("-f", "a@a.example\nX-Receiver: mallory@m.example", "dan@d.example"), MESSAGE, 2),
    ],
)
def test_what_is_no_job_is_refused_before_it_is_dropped(deferd, spool, arguments, message, status):
    """1 for a message that will not do, 2 for wrong usage; and new/ stays empty."""
    result = deferd("send", *arguments, input=message)
    assert result.exit_code == status
    assert result.stderr
    assert list((spool / "new").iterdir()) == []


def test_one_bad_file_keeps_all_out(deferd, spool, tmp_path):
    """All are read before the first is dropped."""
    good, bad = tmp_path / "good.eml", tmp_path / "bad.yaml"
    good.write_text(MESSAGE)
    bad.write_text("a: [")
    assert deferd("send", good, bad).exit_code == 1
    assert list((spool / "new").iterdir()) == []
    assert deferd("send", "-f", "ann@a.example", bad).exit_code == 2


def test_a_missing_queue_is_told(deferd, spool):
    """Not made: it would not be the daemon's."""
    (spool / "new").rmdir()
    spool.rmdir()
    result = deferd("send", input=MESSAGE)
    assert result.exit_code == 1
    assert f"there is no queue at {spool}" in result.stderr


def test_a_bad_configuration_is_told(deferd, tmp_path):
    """Every fault, and status 1."""
    config = tmp_path / "bad.yaml"
    config.write_text("queue: 5\nlog: 5\n")
    result = deferd("send", "-c", config, input=MESSAGE)
    assert result.exit_code == 1
    assert f"{config}:1: queue: " in result.stderr
    assert f"{config}:2: log: " in result.stderr


def test_a_job_is_synced_before_it_is_seen(spool, monkeypatch):
    """The file, then its name: written and synced under a name that the daemon leaves alone."""
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(fd: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def renamed(path: Path, target: Path) -> Path:
        assert path.name.startswith(".")
        assert path.name.endswith(".tmp")
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    name = drop(str(spool), b"content", ".eml")
    assert steps == ["file", "rename", "directory"]
    path = spool / "new" / f"{name}.eml"
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_drop_leaves_nothing(spool, monkeypatch):
    """A full disk at the sync."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DropError, match="No space left") as caught:
        drop(str(spool), b"content")
    assert caught.value.errno == 28
    assert list((spool / "new").iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
def test_a_job_of_roots_belongs_to_the_daemon(spool):
    """new/ is the daemon's, and so becomes the file."""
    os.chown(spool / "new", 10025, 10025)
    name = drop(str(spool), b"content")
    assert (spool / "new" / f"{name}.eml").stat().st_uid == 10025


def test_without_any_sender_it_is_whoever_calls(deferd, spool):
    """As with sendmail: a message for a recipient that was given needs no From."""
    assert deferd("send", "dan@d.example", input="Subject: from nobody\n\nText.\n").exit_code == 0
    (job,) = dropped(spool)
    assert job.sender.partition("@")[0] == pwd.getpwuid(os.getuid()).pw_name
    assert job.recipients == ("dan@d.example",)
