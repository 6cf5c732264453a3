"""The laws of the house, read off the imports and calls of its files."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("deferred", "config", "service")
NETWORK = {"socket", "ssl", "asyncio", "socketserver", "http", "urllib", "smtplib", "selectors", "select"}
DISK = {"os", "io", "pathlib", "shutil", "tempfile", "sqlite3", "apsw", "glob", "mmap", "fcntl"}
CLOCKS = {("time", name) for name in ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "sleep")} | {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def sources(folder: str) -> list[Path]:
    """The Python files below `folder`."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder}/ has no files: this test would prove nothing"
    return found


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in it, fully dotted; TYPE_CHECKING or not."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    """The first words of all that the file imports."""
    return {name.split(".")[0] for name in imports(path)}


def calls(path: Path) -> Iterator[tuple[str, str, int]]:
    """Every `name.attribute` that the file mentions, and its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr, node.lineno


def name(path: Path) -> str:
    """The path as a reader knows it."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources("deferred"), ids=name)
def test_deferred_needs_the_standard_library_alone(path: Path) -> None:
    """Law 1: deferred/ imports nothing but the standard library and itself; web.py may use h11; nothing logs."""
    allowed = set(sys.stdlib_module_names) | {"deferred"}
    if path.name == "web.py":
        allowed.add("h11")
    assert roots(path) <= allowed - {"logging"}


@pytest.mark.parametrize("path", sources("config"), ids=name)
def test_config_knows_nothing_of_ours(path: Path) -> None:
    """Law 1: config/ imports nothing of deferred/ or service/."""
    assert not roots(path) & {"deferred", "service"}


@pytest.mark.parametrize("path", sources("service/smtp"), ids=name)
def test_the_protocol_sees_no_io(path: Path) -> None:
    """Law 2: service/smtp/ sees neither socket, clock, Deferred, nor log."""
    seen = set(imports(path))
    assert not roots(path) & (NETWORK | {"time", "datetime", "logging", "structlog", "deferred", "threading", "random"})
    assert not any(module.startswith(("service.queue", "service.delivery", "service.journal")) for module in seen)


@pytest.mark.parametrize("path", sources("service/delivery"), ids=name)
def test_delivery_never_touches_the_disk(path: Path) -> None:
    """Law 3: service/delivery/ imports nothing that opens files; of the queue it knows the store's interface alone."""
    assert not roots(path) & DISK
    queue = {module for module in imports(path) if module.startswith("service.queue")}
    assert all(module.startswith("service.queue.store") or module == "service.queue" for module in queue)
    assert "open" not in {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@pytest.mark.parametrize("path", sources("service/queue"), ids=name)
def test_the_queue_never_touches_the_network(path: Path) -> None:
    """Law 3: service/queue/ imports no network module and nothing of delivery or SMTP."""
    assert not roots(path) & (NETWORK - {"select"})
    assert not any(module.startswith(("service.delivery", "service.smtp", "service.web")) for module in imports(path))


BELOW_THE_DAEMON = [
    path
    for path in sources("service")
    if path.name != "daemon.py" and "cli" not in path.relative_to(ROOT).parts  # commands are processes of their own
]


@pytest.mark.parametrize("path", BELOW_THE_DAEMON, ids=name)
def test_clock_reactor_and_randomness_are_handed_in(path: Path) -> None:
    """Law 4: nothing below daemon.py creates a reactor, reads the clock, or draws a random number by itself."""
    mentioned = set(imports(path))
    assert not mentioned & {"deferred.reactor", "deferred.reactor.Reactor", "deferred.reactor.get_reactor"}
    assert not roots(path) & {"secrets", "uuid"}
    assert not [
        f"line {line}: {owner}.{attribute}"
        for owner, attribute, line in calls(path)
        if (owner, attribute) in CLOCKS or (owner == "random" and attribute != "Random")
    ]


@pytest.mark.parametrize("path", [path for folder in OURS for path in sources(folder)], ids=name)
def test_a_file_is_named_for_what_it_is_and_can_be_read_at_a_sitting(path: Path) -> None:
    """Law 5: no vague names, no file beyond 400 lines, no function beyond 50."""
    assert path.stem not in VAGUE
    text = path.read_text()
    assert text.count("\n") <= 400
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 50
    ]
    assert not long
