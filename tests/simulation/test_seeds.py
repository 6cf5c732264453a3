"""Seeds: each is some days of a daemon's life in which everything goes wrong, and nothing is lost."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deferred.failure import Failure
from tests.simulation.__main__ import main
from tests.simulation.simulation import DAY, QUIET, Measure, Simulation

CHUNKS = 10
SEEDS = 10
"""In each chunk; so many chunks of so many seeds of two days are two hundred days. CI goes through more (.ci/run)."""

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("seed", [1, 3, 4, 5])
def test_a_quiet_day_brings_everything_to_its_end(spool: Path, seed: int) -> None:
    """Where nothing goes wrong, every job is delivered or fails, once, and when it is due, not before and not after."""
    books = Simulation(seed, spool, QUIET).run()
    assert not books.violations
    assert len(books.mail) >= 5
    assert not books.faults
    assert len({(taking.token, taking.recipient) for taking in books.takings}) == len(books.takings)
    assert books.lateness
    assert min(books.lateness) >= 0.0
    assert max(books.lateness) < 0.1


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_happens_nothing_is_lost(
    spool: Path, chunk: int, record_property: Callable[[str, object], None], unhandled: list[Failure]
) -> None:
    """After days of crashes, full disks and hostile servers, each recipient has come to an end that is true."""
    found = []
    days = 0.0
    for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
        simulation = Simulation(seed, spool)
        books = simulation.run()
        days += simulation.measure.days
        found += [f"seed {seed}: {violation}" for violation in books.violations]
        for kind, number in books.faults.items():
            record_property(f"simulated: {kind}", number)
        for kind, number in books.duplicates.items():
            record_property(f"simulated: sent twice: {kind}", number)
        record_property("simulated: jobs", len(books.mail))
        del simulation, books
        gc.collect(1)
        found += [f"seed {seed}: no errback took {failure.get_traceback()}" for failure in unhandled]
        unhandled.clear()
    record_property("simulated: days", int(days))
    assert not found, "\n".join(found)


def test_a_seed_is_replayed_to_the_microsecond(spool: Path) -> None:
    """The same seed gives the same trace, also in another process, where sets have another order."""
    measure = Measure(days=1.0)
    first = Simulation(7, spool, measure).run()
    assert first.faults
    code = (
        "from pathlib import Path; from tests.simulation.simulation import *;"
        f"print(Simulation(7, Path({str(spool)!r}), Measure(days=1.0)).run().digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)}
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == first.digest
    assert Simulation(8, spool, measure).run().digest != first.digest


@pytest.mark.parametrize("words", [["x"], ["seed:x"], ["5-"], ["-5"], ["5", "20"]])
def test_what_names_no_seeds_is_told_how_they_are_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with the status of a wrong usage."""
    assert main(words) == 2
    assert (
        capsys.readouterr().err
        == f"{' '.join(words)!r} is no seeds: usage: make simulate SEEDS=1000, 5-20 or seed:17\n"
    )


def test_the_days_add_up() -> None:
    """The seeds of this file make half a year, those of CI more than two."""
    assert CHUNKS * SEEDS * Measure().days >= 183
    more = re.search(r"make simulate SEEDS=(\d+)-(\d+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert more is not None
    first, last = map(int, more.groups())
    assert first == CHUNKS * SEEDS
    assert (last + 1) * Measure().days >= 731
    assert DAY == 86_400
