"""Runs seeds: `python -m tests.simulation 1000` (the first thousand), `5-20`, `seed:17` (one, with its whole trace)."""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from deferred.defer import set_unhandled_error_hook
from deferred.failure import Failure
from tests.simulation.simulation import Measure, Simulation


def place() -> str | None:
    """Where files cost least: the store's promises to the disk are kept, not tested, here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run_seed(seed: int, keep: bool = False) -> Simulation:
    """Run one seed in a directory of its own."""
    with tempfile.TemporaryDirectory(dir=place(), prefix="simulation-") as directory:
        simulation = Simulation(seed, Path(directory) / "spool", keep=keep)
        books, world = simulation.books, simulation.world

        def unhandled(failure: Failure, _: str) -> None:
            books.violated(world.time(), f"no errback took {failure.get_traceback()}")

        before = set_unhandled_error_hook(unhandled)
        simulation.run()
        gc.collect(1)
        set_unhandled_error_hook(before)
    return simulation


def _run(seed: int) -> tuple[int, list[str], Counter[str], Counter[str], int]:
    books = run_seed(seed).books
    return seed, books.violations, books.faults, books.duplicates, len(books.mail)


def main(words: list[str]) -> int:
    """Run what the words say; 1 if anything was not as it should be, 2 if they say nothing."""
    word = words[0] if words else "100"
    if len(words) > 1 or not re.fullmatch(r"seed:[0-9]+|[0-9]+(-[0-9]+)?", word):
        wrong = " ".join(words)
        print(f"{wrong!r} is no seeds: usage: make simulate SEEDS=1000, 5-20 or seed:17", file=sys.stderr)
        return 2
    if word.startswith("seed:"):
        books = run_seed(int(word[5:]), keep=True).books
        print("\n".join(books.lines))
        print(f"digest {books.digest}; {len(books.violations)} violations")
        return bool(books.violations)
    first, _, last = word.partition("-")
    seeds = range(int(first), int(last) + 1) if last else range(int(first))
    faults: Counter[str] = Counter()
    duplicates: Counter[str] = Counter()
    began, bad, jobs = time.monotonic(), 0, 0
    # the collector looks seldom, as in the tests: it finds little
    with ProcessPoolExecutor(os.cpu_count(), initializer=gc.set_threshold, initargs=(100_000, 10, 10)) as pool:
        for seed, violations, faulty, twice, number in pool.map(_run, seeds, chunksize=4):
            faults += faulty
            duplicates += twice
            jobs += number
            bad += bool(violations)
            for violation in violations[:5]:
                print(f"seed {seed}: {violation}", flush=True)
    days = len(seeds) * Measure().days
    print(f"{len(seeds)} seeds, {days:.0f} simulated days, {jobs} jobs, {time.monotonic() - began:.0f} s")
    for name, counted in (("faults", faults), ("duplicates, explained", duplicates)):
        print(f"{name}: {sum(counted.values())}")
        for kind, number in sorted(counted.items()):
            print(f"  {number:7} {kind}")
    print(f"{bad} seeds failed" if bad else "all as it should be")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
