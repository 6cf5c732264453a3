"""`deferd-sendmail`."""

from __future__ import annotations

import errno
import io
import os
import pwd
import re
from pathlib import Path

import pytest

from service.cli import drop as dropping
from service.cli.sendmail import parse, sendmail
from service.message.job import Job
from service.message.read import ReadingRules, read_job

ME = f"{pwd.getpwuid(os.getuid()).pw_name}@client.example"
MESSAGE = b"From: Ann <ann@a.example>\nTo: bob@b.example\nBcc: secret@b.example\n\nText.\n"


def sent(spool: Path, *arguments: str, message: bytes = MESSAGE) -> Job:
    """The job that the call dropped."""
    assert sendmail(list(arguments), io.BytesIO(message)) == os.EX_OK
    (path,) = (spool / "new").iterdir()
    rules = ReadingRules("client.example")
    return read_job(path.name, path.read_bytes(), rules=rules, now=0, unique=lambda: "u", open_attachment=lambda _: b"")


def test_arguments_are_the_recipients(spool):
    """And who calls is the sender, whatever From says."""
    job = sent(spool, "dan@d.example", "Eve <eve@e.example>, fay@f.example")
    assert job.recipients == ("dan@d.example", "eve@e.example", "fay@f.example")
    assert job.sender == ME


@pytest.mark.parametrize("arguments", [["-t"], ["-ti"], ["-it"], ["-t", "-i"], ["-oi", "-t", "-oem", "-B8BITMIME"]])
def test_the_header_tells_the_recipients(spool, arguments):
    """With -t, however it is written; Bcc is among them and is taken out."""
    job = sent(spool, *arguments)
    assert job.recipients == ("bob@b.example", "secret@b.example")
    assert b"secret" not in job.content


def test_arguments_join_those_of_the_header(spool):
    """As Postfix has it."""
    assert sent(spool, "-t", "dan@d.example").recipients == ("dan@d.example", "bob@b.example", "secret@b.example")


@pytest.mark.parametrize(
    ("arguments", "sender"),
    [
        (["-f", "list@a.example"], "list@a.example"),
        (["-flist@a.example"], "list@a.example"),
        (["-r", "list@a.example"], "list@a.example"),
        (["-f", "<list@a.example>"], "list@a.example"),
        (["-f", "<>"], ""),
        (["-f", ""], ""),
        (["-f", "www-data"], "www-data@client.example"),
    ],
)
def test_the_sender_can_be_given(spool, arguments, sender):
    """With or without a space, a name, or a domain."""
    assert sent(spool, *arguments, "--", "dan@d.example").sender == sender


def test_a_name_alone_is_at_our_own_domain(spool):
    """As cron calls it."""
    job = sent(spool, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", message=b"To: root\nSubject: x\n\nText.\n")
    assert job.recipients == ("root@client.example",)
    assert f"From: CronDaemon <{ME}>\r\n".encode() in job.content


@pytest.mark.parametrize(
    "to", ["root", "Root <root>", "root, ann@a.example, ann@a.example", "ops: root, ann@a.example;"]
)
def test_a_name_alone_in_the_header_is_at_our_own_domain(spool, to):
    """As cron has it, which calls us with -t; the header itself stays as it is."""
    job = sent(spool, "-t", "-i", message=f"From: root (Cron Daemon)\nTo: {to}\nSubject: x\n\nText.\n".encode())
    assert job.recipients == ("root@client.example", *(["ann@a.example"] if "ann" in to else []))
    assert f"To: {to}\r\n".encode() in job.content


def test_a_header_that_needs_nothing_is_left_to_tell_the_recipients(spool):
    """What would be written above it would count against the size of the message."""
    sent(spool, "-t")
    (path,) = (spool / "new").iterdir()
    assert b"X-Receiver" not in path.read_bytes()


def test_a_name_alone_may_stand_beside_an_address(spool):
    """In one argument."""
    assert sent(spool, "root,ann@a.example").recipients == ("root@client.example", "ann@a.example")


def test_a_missing_from_is_added(spool):
    """To a message without a header, too: its text does not become one."""
    job = sent(spool, "dan@d.example", message=b"Just text: no header.\n")
    header, _, text = job.content.partition(b"\r\n\r\n")
    assert f"From: {ME}".encode() in header.splitlines()
    assert text == b"Just text: no header.\r\n"


def test_a_from_that_is_there_stays_alone(spool):
    """In any case."""
    job = sent(spool, "-Fx", "dan@d.example", message=b"Subject: x\nFROM: ann@a.example\n\nFrom: in the text\n")
    assert job.content.lower().count(b"\nfrom: ") == 2


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_dot_ends_the_message(spool, end):
    """Unless -i is given."""
    message = MESSAGE + b"." + end + b"more" + end
    assert sent(spool, "dan@d.example", message=message).content.endswith(b"\r\nText.\r\n")


def test_a_dot_is_text_with_i(spool):
    """-i or -oi."""
    assert sent(spool, "-i", "dan@d.example", message=MESSAGE + b".\nmore\n").content.endswith(b"\r\n.\r\nmore\r\n")


def test_the_message_cannot_add_recipients(spool):
    """Neither lines of an envelope at its top."""
    job = sent(spool, "dan@d.example", message=b"X-Receiver: mallory@m.example\n" + MESSAGE)
    assert job.recipients == ("dan@d.example",)
    assert job.sender == ME


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        ([], MESSAGE, os.EX_USAGE),
        (["-bs"], MESSAGE, os.EX_USAGE),
        (["-bd"], MESSAGE, os.EX_USAGE),
        (["-q"], MESSAGE, os.EX_USAGE),
        (["-z", "dan@d.example"], MESSAGE, os.EX_USAGE),
        (["-F"], MESSAGE, os.EX_USAGE),
        (["dan@d.example", "-f"], MESSAGE, os.EX_USAGE),
        (["dan@d.example", "-C", ""], MESSAGE, os.EX_USAGE),
        (["-f", "a b@c.example", "dan@d.example"], MESSAGE, os.EX_USAGE),
        (["dan@d..example"], MESSAGE, os.EX_NOUSER),
        (["", "dan@d.example"], MESSAGE, os.EX_NOUSER),
        (["dan@d.example", "(comment)"], MESSAGE, os.EX_NOUSER),
        (["dan@d.example"], b"", os.EX_DATAERR),
        (["-t"], b"Subject: x\n\nText.\n", os.EX_DATAERR),
        (["dan@d.example"], b"x\0y", os.EX_DATAERR),
        (["dan@d.example"], b"x" * 1_100_000, os.EX_DATAERR),
        (["-F", "a\nBcc: x@y.example", "dan@d.example"], b"Text.\n", os.EX_DATAERR),
        (["-C", "/no/such.yaml", "dan@d.example"], MESSAGE, os.EX_CONFIG),
        (["-C", "/no/such.yaml", "-bp"], MESSAGE, os.EX_CONFIG),
        (["dan@d.example"], None, os.EX_NOINPUT),
    ],
)
def test_the_exit_status_is_sysexits(spool, capsys, arguments, message, status):
    """Each kind of trouble has its own, is told, and drops nothing."""
    assert sendmail(arguments, None if message is None else io.BytesIO(message)) == status
    assert capsys.readouterr().err.startswith("deferd-sendmail: ")
    assert list((spool / "new").iterdir()) == []


def test_a_full_disk_is_a_temporary_failure(spool, monkeypatch):
    """The caller may try again; a queue that is not there is no such case."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dropping, "_write", full)
    assert sendmail(["dan@d.example"], io.BytesIO(MESSAGE)) == os.EX_TEMPFAIL
    (spool / "new").rmdir()
    spool.rmdir()
    assert sendmail(["dan@d.example"], io.BytesIO(MESSAGE)) == os.EX_CANTCREAT


def test_a_queue_that_cannot_be_listed_has_a_status_of_sysexits_too(spool, capfd):
    """-bp is `deferd queue list`, which has others."""
    assert sendmail(["-bp"], None) == os.EX_UNAVAILABLE
    assert "no deferd has worked in this directory yet" in capfd.readouterr().err


def test_what_is_missing_is_named_by_an_option_of_sendmail(spool, capsys):
    """Here -c is none."""
    assert sendmail(["-C", "/no/such.yaml", "dan@d.example"], io.BytesIO(MESSAGE)) == os.EX_CONFIG
    assert capsys.readouterr().err == "deferd-sendmail: /no/such.yaml: there is no such file; -C names it\n"
    (spool / "new").rmdir()
    assert sendmail(["dan@d.example"], io.BytesIO(MESSAGE)) == os.EX_CANTCREAT
    assert capsys.readouterr().err.endswith("or name its configuration with -C\n")


def test_it_lists_the_options_that_it_knows(spool, capsys):
    """For --help; who gives an unknown one is told of that."""
    assert sendmail(["--help"], io.BytesIO(MESSAGE)) == os.EX_OK
    told = capsys.readouterr()
    assert told.err == ""
    words = re.findall(r"(?<!\S)-\w+", told.out)
    assert set(words) >= {"-t", "-i", "-oi", "-f", "-r", "-F", "-C", "-bm", "-bp"}
    for word in words:
        parse([word, "value"])
    assert sendmail(["--unknown"], io.BytesIO(MESSAGE)) == os.EX_USAGE
    assert capsys.readouterr().err == "deferd-sendmail: --unknown is not known here; --help lists what is\n"
    assert list((spool / "new").iterdir()) == []


def test_options_of_others_are_passed_over():
    """With their values, so that none becomes a recipient."""
    options = parse(
        ["-N", "never", "-R", "hdrs", "-V", "id", "-O", "x=y", "-o7", "-bm", "-em", "-L", "tag", "-v", "a@b"]
    )
    assert options.recipients == ["a@b"]
    assert parse(["-bp"]).list_queue
