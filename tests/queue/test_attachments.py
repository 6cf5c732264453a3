"""Attachments by path: only from where they may come, and only plain files."""

from __future__ import annotations

import errno
import os

import pytest

from service.message.job import JobError
from service.queue.attachments import Attachments
from service.queue.drop import Lacking, NotYet, Unreadable


@pytest.fixture
def place(tmp_path):
    (tmp_path / "new" / "sub").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "secret").write_text("secret")
    return tmp_path


@pytest.fixture
def attachments(place):
    return Attachments(place / "new", [place / "shared"], most=1000)


def test_a_file_below_new_or_an_allowed_folder_is_read(place, attachments):
    """By relative path, by subfolder, by absolute path."""
    (place / "new" / "a.pdf").write_bytes(b"a\0")
    (place / "new" / "sub" / "b.pdf").write_bytes(b"b")
    (place / "shared" / "c.pdf").write_bytes(b"c")
    assert attachments.read("a.pdf") == b"a\0"
    assert attachments.read("sub/b.pdf") == b"b"
    assert attachments.read(str(place / "shared" / "c.pdf")) == b"c"
    assert attachments.read(str(place / "new" / "sub" / "b.pdf")) == b"b"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing.pdf", "cannot be opened"),
        ("../secret", "without '..'"),
        ("sub/../../secret", "without '..'"),
        ("/etc/passwd", "outside new/ and outside every allowed folder"),
        ("{place}/secret", "outside new/"),
        ("{place}/shared/../secret", "without '..'"),
        ("{place}/new/../secret", "without '..'"),
        ("{place}/shared", "name a file"),
        ("", "no path"),
        (".", "no path"),
        ("a\0b", "NUL"),
        ("sub", "no regular file"),
        ("link", "cannot be opened"),
        ("linked/secret", "cannot be opened"),
        ("fifo", "no regular file"),
        ("hard", "more than one link"),
        ("large", "at most 1000"),
    ],
)
def test_anything_else_is_refused(place, attachments, path, why):
    """Links at any step, paths that lead out, what is no file, what is too large; nothing blocks."""
    new = place / "new"
    (new / "link").symlink_to(place / "secret")
    (new / "linked").symlink_to(place)
    os.mkfifo(new / "fifo")
    (new / "hard").hardlink_to(place / "secret")
    (new / "large").write_bytes(b"x" * 1001)
    with pytest.raises(JobError, match=why):
        attachments.read(path.format(place=place))


@pytest.mark.parametrize(("error", "kind"), [(errno.EMFILE, Lacking), (errno.ENOMEM, Lacking), (errno.EIO, Unreadable)])
@pytest.mark.parametrize("call", ["open", "read"])
def test_what_the_system_cannot_give_now_is_no_fault_of_the_job(place, attachments, monkeypatch, call, error, kind):
    """The job is not refused for it: it waits."""
    (place / "new" / "a.pdf").write_bytes(b"a")
    real = getattr(os, call)

    def fail(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(NotYet, match=os.strerror(error)) as raised:
        attachments.read("a.pdf")
    assert isinstance(raised.value, kind)
    monkeypatch.setattr(os, call, real)
    assert attachments.read("a.pdf") == b"a"
