"""The last things that went wrong, remembered for the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

# a rest is none: the page has it beside its site, and a dead site would soon crowd out all else
TROUBLES: Final = (
    "failed",
    "in_doubt",
    "job_rejected",
    "file_stuck",
    "intake_failed",
    "result_failed",
    "store_failed",
    "clock_jumped",
    "reload_failed",
    "unhandled_error",
)

_APART: Final = " · "


class Trouble(msgspec.Struct, frozen=True):
    """An event of the journal that somebody may have to look into. `at` is by the store's time."""

    at: float
    event: str
    subject: str
    text: str


class Recent:
    """A listener of the journal to `TROUBLES`, which keeps the last of them, `size` in all."""

    def __init__(self, now: Callable[[], float], size: int = 20) -> None:
        self._now = now
        self._last: deque[tuple[float, str, dict[str, object]]] = deque(maxlen=size)

    def __call__(self, event: str, facts: dict[str, object]) -> None:
        """Keep it. Nothing is put into words before somebody looks: a storm of them is cheap."""
        self._last.append((self._now(), event, facts))

    def troubles(self) -> list[Trouble]:
        """The last ones, newest first."""
        return [Trouble(at, event, _subject(facts), _text(facts)) for at, event, facts in reversed(self._last)]


def _subject(facts: dict[str, object]) -> str:
    """Who or what it is about."""
    parts = (facts.get(name) for name in ("id", "name", "recipient", "site", "host", "where"))
    return " ".join(dict.fromkeys(str(part) for part in parts if part))


def _text(facts: dict[str, object]) -> str:
    """What was said: the phase, the code, the words; then what is done about it."""
    parts = [facts.get(name) for name in ("phase", "code", "text", "why")]
    parts += str(facts.get("error", "")).splitlines()[-1:]  # of a traceback, what was raised
    text = " ".join(str(part) for part in parts if part)
    text = text.replace("\n", _APART)  # a configuration's problems are a line each
    text = text if len(text) <= 300 else f"{text[:299]}…"
    return f"{text}{_APART}decision: {facts['decision']}" if facts.get("decision") else text
