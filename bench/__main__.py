"""`python -m bench [NAME...] [--quick] [--write]`: measure, and print the tables.

Ends with 1 where a benchmark was no measurement (messages missing, counts that differ, an error), never for slowness.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Final

from bench import document
from bench.place import place
from bench.suite import Benchmark, Scale, Shown
from bench.wrong import Skipped

BENCHMARKS: Final = {
    "deferreds": "bench.deferred_cost",
    "store": "bench.store_cost",
    "throughput": "bench.throughput",
    "journaled": "bench.journaled",
    "roundtrips": "bench.roundtrips",
    "tls": "bench.encryption",
    "crowd": "bench.crowd",
    "models": "bench.models",
    "fairness": "bench.fairness",
    "million": "bench.million",
    "large": "bench.large",
}
"""Each module, which has a `BENCHMARK`, is imported when its turn comes."""

NEEDED: Final = {
    "deferreds": "twisted",
    "throughput": "aiosmtplib",
    "tls": "trustme",
    "crowd": "aiosmtplib",
}
"""What a benchmark needs that is installed for benchmarks alone."""


def run(name: str, scale: Scale) -> Shown:
    """Measure, print the tables, and return all that there is to show."""
    benchmark: Benchmark = importlib.import_module(BENCHMARKS[name]).BENCHMARK
    began = time.monotonic()
    print(f"## {name}: {benchmark.title}\n", flush=True)
    with place():
        shown = benchmark.show(benchmark.measure(scale))
    for table in shown.tables:
        print(table.text())
    print(f"({time.monotonic() - began:.0f} s)\n", flush=True)
    return shown


def missing(names: Iterable[str]) -> list[str]:
    """What these benchmarks need and is not installed."""
    needed = sorted({NEEDED[name] for name in names if name in NEEDED})
    return [module for module in needed if importlib.util.find_spec(module) is None]


def arguments(given: list[str]) -> argparse.Namespace:
    """What the command line asks for."""
    names = ", ".join(BENCHMARKS)
    parser = argparse.ArgumentParser(prog="python -m bench", description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {names}; else all")
    parser.add_argument("--quick", action="store_true", help="everything small: its figures mean nothing")
    parser.add_argument("--write", action="store_true", help="put tables and pictures into docs/performance.md")
    asked = parser.parse_args(given)
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {names}")
    if asked.quick and asked.write:
        parser.error("figures of --quick are not to be written down")
    return asked


def main(given: list[str]) -> int:
    """Run those that are named, or all."""
    asked = arguments(given)
    if absent := missing(asked.names or BENCHMARKS):
        print(f"bench: {', '.join(absent)} is not installed: `make bench` installs what it needs", file=sys.stderr)
        return 1
    print(f"{document.machine()}\n")
    if asked.quick:
        print("--quick: everything is small, to see that it works. These figures mean nothing.\n")
    failed = []
    for name in asked.names or BENCHMARKS:
        try:
            shown = run(name, Scale(asked.quick))
            if asked.write:
                document.write(name, shown)
        except Skipped as skipped:
            print(f"skipped: {skipped}\n")
        except Exception:  # noqa: BLE001 (the others are measured all the same)
            traceback.print_exc()
            failed.append(name)
    if failed:
        print(f"wrong: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
