"""What every test may use: a reactor, a clock, and the law that no error goes unheard; and the sums at the end."""

from __future__ import annotations

import gc
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from deferred.defer import Deferred, set_unhandled_error_hook
from deferred.failure import Failure
from deferred.reactor import Reactor
from deferred.testing import Clock

# How long a machine that does other things takes for an example says nothing about what is tested.
settings.register_profile("deferd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("deferd")


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: a test of the real daemon waits longer than it computes."""
    return (os.cpu_count() or 1) + 2


# A worker that has simulated a hundred thousand messages has much to look through, and little to find.
gc.set_threshold(100_000, 10, 10)

LONG = ("daemon/test_killed.py", "daemon/", "simulation/")
"""Where tests take seconds: those of the daemon wait, the others compute."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where workers share the tests, the long ones of each kind are spread evenly among all others: else there are
    times at which all workers wait, and the cores are idle. Of the others those of a file stay together."""
    if not hasattr(config, "workerinput"):
        return
    here = Path(__file__).parent
    paths = {item: item.path.relative_to(here).as_posix() for item in items}
    kinds = defaultdict(list)
    for item, path in paths.items():
        kinds[next((kind for kind in LONG if path.startswith(kind)), "")].append(item)
    places = {item: number / len(kind) for kind in kinds.values() for number, item in enumerate(kind)}
    first = {paths[item]: places[item] for item in reversed(kinds[""])}
    items.sort(key=lambda item: first.get(paths[item], places[item]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be skipped (in CI), a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("TESTS_NOTHING_SKIPPED"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where TESTS_NOTHING_SKIPPED says that nothing may be: {report.longrepr}"
    return report


SUMS = {"simulated: ": "the simulated world", "killed: ": "the daemon killed"}
"""Numbers that tests record under names that begin so are added up, under that title."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the sums, whichever worker has run the tests.

    Here and not beside them: where workers run the tests, no other conftest.py is read by who prints.
    """
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for prefix, title in SUMS.items():
        counted: Counter[str] = Counter()
        for name, number in (each for report in reports for each in report.user_properties):
            if name.startswith(prefix):
                counted[name.removeprefix(prefix)] += int(number)
        if counted:
            terminalreporter.section(title)
            for name, number in sorted(counted.items()):
                terminalreporter.line(f"{number:7} {name}")


@pytest.fixture(autouse=True)
def unhandled() -> Iterator[list[Failure]]:
    """Failures that no errback took: they fail the test, unless it takes them out of this list."""
    failures: list[Failure] = []
    before = set_unhandled_error_hook(lambda failure, _: failures.append(failure))
    yield failures
    gc.collect(1)  # the young generations: a failure's traceback is often in a cycle
    set_unhandled_error_hook(before)
    if failures:
        pytest.fail("an error that no errback took:\n" + failures[0].get_traceback(), pytrace=False)


@pytest.fixture
def errors() -> Iterator[list[Exception]]:
    """What the reactor's callbacks raised: it fails the test, unless the test takes it out of this list."""
    raised: list[Exception] = []
    yield raised
    if raised:
        raise raised[0]


@pytest.fixture
def reactor(errors: list[Exception]) -> Iterator[Reactor]:
    """A reactor on the system's clock and sockets, closed afterwards."""
    reactor = Reactor(on_error=errors.append)
    yield reactor
    reactor.close()


@pytest.fixture
def run(reactor: Reactor) -> Callable[[Deferred[Any]], Any]:
    """`run(deferred)` turns the reactor until it has fired, for at most 10 seconds."""

    def run(deferred: Deferred[Any]) -> Any:
        return reactor.run_until_complete(deferred, 10)

    return run


@pytest.fixture
def clock() -> Clock:
    """Time that passes when told to."""
    return Clock()
