"""From a file's name to its reader."""

from __future__ import annotations

import pytest

from service.message.read import is_job_name
from tests.message.conftest import attempt

FILES = {
    ".eml": b"From: a@a.example\nTo: b@b.example\n\nhi\n",
    ".json": b'{"from": "a@a.example", "to": "b@b.example"}',
    ".yaml": b"from: a@a.example\nto: b@b.example\n",
    ".yml": b"from: a@a.example\nto: b@b.example\n",
}


@pytest.mark.parametrize("ending", FILES)
def test_the_ending_says_how_a_file_is_read(read, ending):
    """Each kind of file, and the same job from each."""
    job = read("x" + ending, FILES[ending])
    assert (job.sender, job.recipients) == ("a@a.example", ("b@b.example",))
    assert b"From: a@a.example\r\n" in job.content


@pytest.mark.parametrize(
    ("name", "is_job"),
    [
        *((name, True) for name in ("a.eml", "a.b.json", "ü.yaml", "a.yml")),
        *((name, False) for name in (".a.eml", ".eml", "a.eml.tmp", "a.part", "invoice.pdf", "eml", "a.EML", "")),
    ],
)
def test_only_visible_files_with_a_job_s_ending_are_jobs(name, is_job):
    """The rest is left alone: files that are being written, and attachments."""
    assert is_job_name(name) is is_job


@pytest.mark.parametrize("ending", FILES)
def test_a_file_over_the_limit_is_refused_unread(ending):
    """Whatever it holds."""
    assert "limits.message_size" in str(attempt("x" + ending, FILES[ending], message_size=len(FILES[ending]) - 1))
