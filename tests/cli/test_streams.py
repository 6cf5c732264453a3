"""Commands whose standard input is closed, or whose standard output takes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MESSAGE = b"From: ann@a.example\nTo: bob@b.example\n\nText.\n"

pytestmark = pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="needs /dev/full, as Linux has it")


def shell(command: str, module: str = "service.cli", input: bytes = MESSAGE) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a shell does; "$@" is deferd."""
    python = [sys.executable, "-c", f"import sys; from {module} import main; main()"]
    return subprocess.run(["sh", "-c", command, "sh", *python], cwd=ROOT, input=input, capture_output=True, check=False)


def test_what_was_dropped_is_dropped_though_its_name_cannot_be_printed(spool: Path) -> None:
    """Whoever takes that for a failure sends it again: the status is 0, and the name is told on standard error."""
    done = shell('"$@" send > /dev/full')
    (job,) = (spool / "new").iterdir()
    assert done.stderr.decode().splitlines() == [
        "deferd: standard output cannot be written: No space left on device",
        f"deferd: dropped all the same: {job.stem}",
    ]
    assert done.returncode == 0


def test_what_was_dropped_is_dropped_though_nothing_can_be_said_at_all(spool: Path) -> None:
    """As from cron, with its log on a full disk."""
    done = shell('"$@" send > /dev/full 2>&1')
    assert (done.returncode, len(list((spool / "new").iterdir()))) == (0, 1)


@pytest.mark.parametrize("command", ["check --json", "--version", "queue --help"])
def test_an_output_that_takes_nothing_is_told_of(spool: Path, command: str) -> None:
    """In a line, with status 1."""
    done = shell(f'"$@" {command} > /dev/full')
    assert (done.returncode, done.stderr) == (
        1,
        b"deferd: standard output cannot be written: No space left on device\n",
    )


def test_sendmail_has_a_status_of_sysexits_for_that(spool: Path) -> None:
    done = shell('"$@" --help > /dev/full', "service.cli.sendmail")
    assert done.returncode == os.EX_IOERR
    assert done.stderr == b"deferd-sendmail: standard output cannot be written: No space left on device\n"


def test_a_closed_input_is_told_of(spool: Path) -> None:
    """In a line; nothing is dropped."""
    done = shell('"$@" send bob@b.example <&-')
    assert (done.returncode, done.stderr) == (
        1,
        b"deferd: standard input is closed, and the message comes from there\n",
    )
    done = shell('"$@" bob@b.example <&-', "service.cli.sendmail")
    assert (done.returncode, done.stderr) == (
        os.EX_NOINPUT,
        b"deferd-sendmail: standard input is closed, and the message comes from there\n",
    )
    assert list((spool / "new").iterdir()) == []


def test_a_closed_output_is_no_trouble(spool: Path) -> None:
    """Nobody wants to read it."""
    done = shell('"$@" send >&-')
    assert (done.returncode, done.stderr, len(list((spool / "new").iterdir()))) == (0, b"", 1)
