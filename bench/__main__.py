"""`python -m bench [NAME...] [--quick] [--write]`: measure, and print the tables.

Ends with 1 where a benchmark was no measurement (messages missing, counts that differ, an error), never for slowness.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from typing import Final

from bench import (
    crowd,
    deferred_cost,
    document,
    encryption,
    fairness,
    large,
    million,
    models,
    roundtrips,
    store_cost,
    throughput,
)
from bench.suite import Benchmark, Scale, Shown
from bench.wrong import Skipped

MODULES: Final = (
    deferred_cost,
    store_cost,
    throughput,
    roundtrips,
    encryption,
    crowd,
    models,
    fairness,
    million,
    large,
)
BENCHMARKS: Final = tuple(module.BENCHMARK for module in MODULES)


def run(benchmark: Benchmark, scale: Scale) -> Shown:
    """Measure, print the tables, and return all that there is to show."""
    began = time.monotonic()
    print(f"## {benchmark.name}: {benchmark.title}\n", flush=True)
    shown = benchmark.show(benchmark.measure(scale))
    for table in shown.tables:
        print(table.text())
    print(f"({time.monotonic() - began:.0f} s)\n", flush=True)
    return shown


def arguments(given: list[str]) -> argparse.Namespace:
    """What the command line asks for."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(names)}; else all")
    parser.add_argument("--quick", action="store_true", help="everything small: its figures mean nothing")
    parser.add_argument("--write", action="store_true", help="put tables and pictures into docs/performance.md")
    asked = parser.parse_args(given)
    if unknown := set(asked.names) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if asked.quick and asked.write:
        parser.error("figures of --quick are not to be written down")
    return asked


def main(given: list[str]) -> int:
    """Run those that are named, or all."""
    asked = arguments(given)
    print(f"{document.machine()}\n")
    failed = []
    for benchmark in BENCHMARKS:
        if asked.names and benchmark.name not in asked.names:
            continue
        try:
            shown = run(benchmark, Scale(asked.quick))
            if asked.write:
                document.write(benchmark.name, shown)
        except Skipped as skipped:
            print(f"skipped: {skipped}\n")
        except Exception:  # noqa: BLE001 (the others are measured all the same)
            traceback.print_exc()
            failed.append(benchmark.name)
    if failed:
        print(f"wrong: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
