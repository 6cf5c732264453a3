"""How figures are made of what was measured."""

from __future__ import annotations

import pytest

from bench import fairness, roundtrips, throughput
from bench.processes import Cost
from bench.throughput import Row, median, show


def row(rate: float, *, who: str = "deferd", busy: float = 0.1) -> Row:
    return Row("draining", who, messages=100, rate=rate, cpu=1e-4, busy=busy, connections=20, sink="C")


def test_the_run_in_the_middle_stands_for_all() -> None:
    assert median([row(3), row(9), row(4)]) == row(4)._replace(runs=3)


def test_a_run_in_which_the_sink_was_the_limit_voids_the_figure() -> None:
    shown = show([median([row(3), row(9, busy=0.81), row(4)]), row(1, who="Postfix", busy=0.8)]).tables[0]
    assert [line[-1] for line in shown.rows] == ["81% (C), void: it was the limit", "80% (C)"]


def test_a_ratio_is_to_our_rate_on_the_same_way() -> None:
    ends = row(50)._replace(way="end to end")
    shown = show([ends, row(40), row(10, who="Postfix"), ends._replace(who="Postfix", rate=25)]).tables[0]
    assert [line[3] for line in shown.rows] == ["", "", "4.00 x", "2.00 x"]


def test_what_was_skipped_is_told_in_a_note() -> None:
    shown = show([row(50), throughput.Row("draining", "Postfix", skipped="there is none")]).tables[0]
    assert len(shown.rows) == 1
    assert shown.notes == ("Postfix, draining, is left out: there is none",)


def test_the_middle_of_a_run_leaves_out_its_slow_ends() -> None:
    slow, quick = [float(n) for n in range(10)], [10 + n / 100 for n in range(80)]
    assert roundtrips.middle_rate([*slow, *quick, 30.0, 60.0]) == pytest.approx(100)


def test_quantiles_are_of_latencies_in_their_order() -> None:
    assert fairness.quantiles([n / 1000 for n in range(1000)]) == (0.5, 0.99, 0.999)


def test_memory_is_told_for_each_that_was_in_flight() -> None:
    assert Cost(1, 1, idle=100, peak=300).memory(4) == 50
    assert Cost(1, 1, idle=100, peak=300, each=7).memory(4) == 7
