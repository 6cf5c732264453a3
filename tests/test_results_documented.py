"""docs/results.md tells of each key of a result, and of each metric."""

from __future__ import annotations

from pathlib import Path

import msgspec

from service.queue.store import Counts, JobView, RecipientView
from service.web.metrics import Metrics

PAGE = Path(__file__).parent.parent / "docs" / "results.md"


def documented() -> list[tuple[str, str]]:
    """Each row of a table, in order: what it is about, and what it says."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [(name.strip(" `"), text.strip()) for name, text in rows]


def test_every_key_of_a_result_is_told_in_its_order() -> None:
    keys = [field.name for view in (JobView, RecipientView) for field in msgspec.structs.fields(view)]
    assert [name for name, _ in documented()][: len(keys)] == keys


def test_every_metric_is_told_in_its_own_words() -> None:
    metrics = Metrics(lambda: 0.0, "1", lambda: Counts(0, 0, None), lambda: 0)
    told = [(metric.name, metric.documentation) for metric in metrics.collect()]
    assert documented()[-len(told) :] == told
