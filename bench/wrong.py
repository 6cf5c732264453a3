"""What a benchmark raises when it has not measured what it says: messages missing, counts that differ."""

from __future__ import annotations


class Wrong(Exception):
    """The run is no measurement; the text says why."""


class Skipped(Exception):
    """This machine has not what the benchmark needs; the text says what, and how to get it."""
