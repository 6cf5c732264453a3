"""Messages a second end to end once more, on an ext4 with its journal, whatever the machine's own file system is.

That is what most machines have, and a file is what a job costs end to end: to make one on an ext4 without a journal
takes several times as long, as soon as others have been removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench import throughput
from bench.place import journaled
from bench.suite import Benchmark, Scale, Shown
from bench.throughput import Row


def measure(scale: Scale) -> list[Row]:
    """deferd and Postfix in turn, several times; the medians."""
    with journaled():
        peers = (throughput.deferd_end_to_end, throughput.deferd_with_results, throughput.postfix_end_to_end)
        return throughput.in_turn(peers, scale)


def show(rows: Sequence[Row]) -> Shown:
    """The same table."""
    return Shown((throughput.table(rows, ", on an ext4 with its journal"),))


BENCHMARK: Final = Benchmark("end to end on an ext4 with a journal, in an image that is mounted", measure, show)
