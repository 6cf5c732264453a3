"""`python -m bench [NAME...] [--quick] [--write]`: measure, and print the tables.

Ends with 1 where a benchmark was no measurement (messages missing, counts that differ, an error), never for slowness.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from bench import deferred_cost, store_cost, throughput
from bench.suite import Benchmark, Scale, Shown
from bench.wrong import Skipped

BENCHMARKS = (deferred_cost.BENCHMARK, store_cost.BENCHMARK, throughput.BENCHMARK)


def run(benchmark: Benchmark, scale: Scale) -> Shown:
    """Measure, print the tables, and return all that there is to show."""
    began = time.monotonic()
    print(f"## {benchmark.name}: {benchmark.title}\n", flush=True)
    shown = benchmark.show(benchmark.measure(scale))
    for table in shown.tables:
        print(table.text())
    print(f"({time.monotonic() - began:.0f} s)\n", flush=True)
    return shown


def main(arguments: list[str]) -> int:
    """Run those that are named, or all."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}; else all")
    parser.add_argument("--quick", action="store_true", help="everything small: its figures mean nothing")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = []
    for benchmark in BENCHMARKS:
        if given.names and benchmark.name not in given.names:
            continue
        try:
            run(benchmark, Scale(given.quick))
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
