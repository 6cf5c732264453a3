"""What is wrong with a configuration: every problem with its place, told all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, a whole file (`line` is 0), or an environment variable."""

    source: str
    line: int = 0
    variable: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is a whole file, which has lines."""
        return not self.line and not self.variable

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has a line for each fault: its place, the key's path, what to do."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(slots=True)
class Problems:
    """Collects faults, so that one run shows them all. `nearest` names the key that a misspelt path was to be."""

    found: list[tuple[Place, str]] = field(default_factory=list)
    nearest: Callable[[str], str | None] = lambda _: None

    def add(self, place: Place, path: str, what: str) -> None:
        """Note that the key at `path` ("" is the whole file), written at `place`, is wrong."""
        self.found.append((place, f"{_printable(path)}: {what}" if path else what))

    def raise_if_any(self) -> None:
        """Raise a `ConfigError` with all faults, in the order of the lines."""
        if self.found:
            in_order = sorted(self.found, key=lambda fault: (fault[0].variable, fault[0].source, fault[0].line))
            raise ConfigError(*(f"{place}: {what}" for place, what in in_order))


def shown(text: str, limit: int = 60) -> str:
    """`text` in quotes, short, and without anything that a terminal would act on."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return f"'{_printable(cut)}'"


def _printable(text: str) -> str:
    """`text` with everything escaped that a terminal would act on: keys, too, are what somebody wrote."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown_path(path: str) -> str:
    """A path as `shown`, but whole: it is there to be found."""
    return shown(path, 4096)
