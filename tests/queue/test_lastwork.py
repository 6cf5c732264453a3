"""What a daemon was at work on survives it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.journal import Journal
from service.queue.aftermath import NOTHING, AtWork
from service.queue.ids import id_text
from service.queue.lastwork import IN_THREAD, LISTENS_TO, NOTES, SURVIVED, LastWork
from service.queue.store import Source
from service.queue.suspects import AT_ONCE, WorkedOn

FILE = Source("hällo.eml", 1, 2, 3)
LARGE = Source("large" * 48 + ".json", 4, 5, 6)


def test_nothing_is_known_of_a_first_start(clock, tmp_path):
    """There was nobody before."""
    assert LastWork(tmp_path, clock).before == NOTHING


def test_deliveries_and_their_last_phases_are_known(clock, tmp_path):
    """Each of those that were worked on, the latest first: one of them may have been deadly."""
    journal, work = Journal(), LastWork(tmp_path, clock)
    journal.add(work, LISTENS_TO)
    journal.tell("attempt_started", id="000000000001")
    journal.tell("step", id="000000000001", phase="connect", seconds=0.1)
    journal.tell("attempt_started", id="000000000002")
    journal.tell("delivered", id="000000000003")
    one, two = WorkedOn("000000000001", "connect"), WorkedOn("000000000002", None)
    assert LastWork(tmp_path, clock).before == AtWork((two, one))
    journal.tell("step", id="000000000001", phase="greeting", seconds=0.1)
    assert LastWork(tmp_path, clock).before == AtWork((WorkedOn("000000000001", "greeting"), two))


def test_it_is_known_how_long_before_the_end_each_was(clock, tmp_path):
    """What was long before the end is not to blame."""
    work = LastWork(tmp_path, clock)
    for number in range(1, 5):
        clock.advance(SURVIVED * 0.4)
        work("attempt_started", {"id": f"00000000000{number}"})
    left = LastWork(tmp_path, clock).before.deliveries
    assert [one.id for one in left] == ["000000000004", "000000000003", "000000000002"]
    assert [one.ago for one in left] == pytest.approx([0, SURVIVED * 0.4, SURVIVED * 0.8])


@pytest.mark.parametrize("pause", [SURVIVED / 2, SURVIVED * 2])
def test_time_is_known_to_go_on_where_there_is_nothing_to_do(clock, tmp_path, pause):
    """A death some time after the last step does not look as if it had come at once."""
    work = LastWork(tmp_path, clock)
    work("attempt_started", {"id": "000000000001"})
    clock.advance(pause)
    work("attempt_started", {"id": "000000000002"})
    clock.advance(AT_ONCE * 0.9)
    assert LastWork(tmp_path, clock).before.deliveries[0].ago <= AT_ONCE
    clock.advance(AT_ONCE * 0.5)
    assert LastWork(tmp_path, clock).before.deliveries[0].ago > AT_ONCE


def test_of_very_many_steps_the_last_are_known(clock, tmp_path):
    """What is noted has its bounds."""
    work = LastWork(tmp_path, clock)
    for number in range(2 * NOTES + 7):
        work("attempt_started", {"id": id_text(number)})
    left = LastWork(tmp_path, clock).before.deliveries
    assert [one.id for one in left] == [id_text(number) for number in reversed(range(NOTES + 7, 2 * NOTES + 7))]


def test_files_are_known_while_they_are_read(clock, tmp_path):
    """On the reactor's thread and in another; one that has been read is to blame for nothing."""
    work = LastWork(tmp_path, clock)
    work.reading(LARGE, IN_THREAD)
    work.reading(FILE)
    assert LastWork(tmp_path, clock).before.files == (FILE, LARGE)
    work.reading(LARGE, IN_THREAD)
    work.reading(FILE)
    work.read()
    assert LastWork(tmp_path, clock).before.files == (LARGE,)


def test_an_end_in_good_order_blames_nothing(clock, tmp_path):
    """What was done last did no harm."""
    work = LastWork(tmp_path, clock)
    work("attempt_started", {"id": "000000000001"})
    work.reading(FILE)
    work.close()
    assert LastWork(tmp_path, clock).before == NOTHING
    work.read()  # somebody's last word


@pytest.mark.parametrize("left", [b"", b"\xff" * 200_000, b"{" * 200_000, b"x" * 10, b"0" * 200_000])
def test_what_is_no_note_is_nothing(clock, tmp_path, left):
    """A file cut short, or full of anything, stops no start."""
    (tmp_path / "last-work").write_bytes(left)
    work = LastWork(tmp_path, clock)
    assert work.before.files == ()
    work.begin()
    work.reading(FILE)
    assert LastWork(tmp_path, clock).before.files == (FILE,)


def test_without_room_nothing_is_noted(clock, tmp_path, monkeypatch):
    """A full disk is no reason not to deliver mail."""

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    work = LastWork(tmp_path, clock)
    work("attempt_started", {"id": "000000000001"})
    work.reading(FILE)
    work.close()
    monkeypatch.undo()
    assert LastWork(tmp_path, clock).before == NOTHING


def test_a_link_is_not_followed(clock, tmp_path):
    """The directory is open to a group: what is written goes nowhere else."""
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "last-work").symlink_to(tmp_path / "elsewhere")
    LastWork(tmp_path, clock)("attempt_started", {"id": "000000000001"})
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_it_survives_sigkill(clock, tmp_path):
    """Nothing is flushed, closed or synced: the note is there all the same."""
    code = (
        "import os, signal, sys; from pathlib import Path; from service.queue.lastwork import LastWork;"
        "from deferred.testing import Clock;"
        "work = LastWork(Path(sys.argv[1]), Clock()); work('attempt_started', {'id': '000000000007'});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -9
    assert LastWork(tmp_path, clock).before.deliveries == (WorkedOn("000000000007", None),)


def test_what_was_survived_by_a_moment_is_not_to_blame(clock, tmp_path):
    """Whoever kills a daemon that waits for a slow server has nobody blamed for it."""
    work = LastWork(tmp_path, clock)

    def blamed():
        return [(one.id, one.phase) for one in LastWork(tmp_path, clock).before.deliveries]

    work("attempt_started", {"id": "000000000001"})
    clock.advance(SURVIVED / 2)
    work("step", {"id": "000000000001", "phase": "data"})
    clock.advance(SURVIVED * 0.9)
    assert blamed() == [("000000000001", "data")]
    clock.advance(SURVIVED * 0.2)
    assert blamed() == []
    assert clock.pending == 0
    work("step", {"id": "000000000001", "phase": "confirm"})
    assert blamed() == [("000000000001", "confirm")]


def test_a_start_that_fails_leaves_the_note_to_the_next(clock, tmp_path):
    """It has not told the store yet what was noted."""
    work = LastWork(tmp_path, clock)
    work("attempt_started", {"id": "000000000001"})
    work.let_go()
    assert clock.pending == 0
    LastWork(tmp_path, clock).let_go()
    assert LastWork(tmp_path, clock).before.deliveries == (WorkedOn("000000000001", None),)
    LastWork(tmp_path, clock).begin()
    assert LastWork(tmp_path, clock).before == NOTHING
