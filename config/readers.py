"""How a node of the document becomes a value: one reader for each kind of key.

A reader is called with the node, the key's path and the problems; it returns the value, or `INVALID` once it has told
what is wrong. Readers combine: a section has readers by key, a list has one for its items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from config import document, units
from config.document import Broken, Node, Scalar, Sequence
from config.problems import Problems, shown

INVALID: Final[Any] = object()

_LOOKS_NUMERIC: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|0x[0-9a-fA-F]+")
_SWITCHES: Final = frozenset(("true", "false", "yes", "no", "on", "off"))


N = TypeVar("N", int, float)


class Reader(Protocol):
    """What makes a value of a node."""

    def __call__(self, node: Node, path: str, problems: Problems) -> Any:
        """The value, or `INVALID`."""


@dataclass(frozen=True, slots=True)
class Value:
    """Reads one scalar. `convert` raises `ValueError`, saying what is wrong and what to write."""

    convert: Callable[[Scalar], Any]
    secret: bool = False

    def __call__(self, node: Node, path: str, problems: Problems) -> Any:
        """The value, or `INVALID`."""
        if isinstance(node, Broken):
            return INVALID
        if not isinstance(node, Scalar):
            kind = "a list" if isinstance(node, Sequence) else "a mapping"
            problems.add(node.place, path, f"is {kind}; write one value")
            return INVALID
        if node.null:
            problems.add(node.place, path, "is empty; give a value or remove the key")
            return INVALID
        try:
            return self.convert(node)
        except ValueError as error:
            # a password in a URL is a mistake, and no reason to print it
            hidden = self.secret or ("://" in node.source and "@" in node.source)
            value = "" if hidden else f"{shown(node.source)} "
            problems.add(node.place, path, f"{value}{error}")
            return INVALID


@dataclass(frozen=True, slots=True)
class Nullable:
    """Reads null as None, and anything else by `reader`."""

    reader: Value

    @property
    def secret(self) -> bool:
        """Whether the value must not be shown."""
        return self.reader.secret

    def __call__(self, node: Node, path: str, problems: Problems) -> Any:
        """None, the value, or `INVALID`."""
        if isinstance(node, Scalar) and node.null:
            return None
        return self.reader(node, path, problems)


@dataclass(frozen=True, slots=True)
class Many:
    """Reads a list into a tuple; one item alone stands for a list of one where `alone` allows it."""

    item: Reader
    alone: bool = False
    least: int = 1

    def __call__(self, node: Node, path: str, problems: Problems) -> Any:
        """A tuple of values, or `INVALID`."""
        node = unfolded(node, problems)
        if isinstance(node, Broken):
            return INVALID
        if self.alone and isinstance(node, Scalar) and not node.null:
            value = self.item(node, path, problems)
            return INVALID if value is INVALID else (value,)
        if not isinstance(node, Sequence):
            problems.add(node.place, path, "is no list; write [first, second] or a line '- item' for each")
            return INVALID
        if len(node.items) < self.least:
            problems.add(node.place, path, "is empty; give at least one")
            return INVALID
        values = [self.item(item, f"{path}[{number}]", problems) for number, item in enumerate(node.items)]
        return INVALID if any(value is INVALID for value in values) else tuple(values)


Check = Callable[[dict[str, Any], "Spot"], None]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a section stands, for a check of keys that depend on each other."""

    path: str
    mapping: document.Mapping
    problems: Problems

    def complain(self, key: str, what: str) -> None:
        """Note that `key` of this section is wrong."""
        place = self.mapping.places.get(key, self.mapping.place)
        self.problems.add(place, joined(self.path, key), what)


@dataclass(frozen=True, slots=True)
class Section:
    """Reads a mapping into a struct. `check` sees the values that are right, may change them, and complains."""

    struct: type[msgspec.Struct]
    keys: Mapping[str, Reader]
    check: Check | None = None

    def __call__(self, node: Node, path: str, problems: Problems) -> Any:
        """The struct, or `INVALID`."""
        node = unfolded(node, problems)
        if isinstance(node, Broken):
            return INVALID
        if not isinstance(node, document.Mapping):
            problems.add(node.place, path, f"is no mapping; its keys are {', '.join(self.keys)}")
            return INVALID
        told = len(problems.found)
        values = self._values(node, path, problems)
        for field in msgspec.structs.fields(self.struct):
            if field.required and field.name not in node.entries:
                problems.add(node.place, joined(path, field.name), "is missing; it has no default")
        if self.check is not None:
            self.check(values, Spot(path, node, problems))
        return self.struct(**values) if len(problems.found) == told else INVALID

    def _values(self, node: document.Mapping, path: str, problems: Problems) -> dict[str, Any]:
        values = {}
        for key, entry in node.entries.items():
            reader = self.keys.get(key)
            if reader is None:
                problems.add(node.places[key], joined(path, shown(key)[1:-1]), unknown(joined(path, key), problems))
                continue
            value = reader(entry, joined(path, key), problems)
            if value is not INVALID:
                values[key] = value
        return values


def joined(path: str, key: str) -> str:
    """The path of `key` in the section at `path`."""
    return f"{path}.{key}" if path else key


def unfolded(node: Node, problems: Problems) -> Node:
    """The list or mapping that an environment variable's text holds; any other node as it is."""
    if not isinstance(node, Scalar) or node.style != "loose" or not node.text.lstrip().startswith(("[", "{", "- ")):
        return node
    return document.parse(node.text, node.place, problems) or Broken(node.place)


def unknown(path: str, problems: Problems) -> str:
    """What to say of a key that does not exist."""
    near = problems.nearest(path)
    return f"is no key that deferd knows; {f'did you mean {near}?' if near else 'remove it'}"


def text(check: Callable[[str], Any] = str, *, secret: bool = False, wanted: str = "text; put it in quotes") -> Value:
    """Text that is not empty, then made into something by `check`; `wanted` is told for a number or a switch."""

    def convert(node: Scalar) -> Any:
        if node.style == "plain":
            if _LOOKS_NUMERIC.fullmatch(node.text):
                raise ValueError(f"is a number, and this is {wanted}")
            if node.text.lower() in _SWITCHES:
                raise ValueError(f"is a switch, and this is {wanted}")
        if not node.text:
            raise ValueError("is empty; give a value")
        if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in node.text):
            raise ValueError("has a control character or is not UTF-8; remove it")
        return check(node.text)

    return Value(convert, secret)


def one_of(*choices: str) -> Value:
    """One of the words in `choices`."""

    def convert(node: Scalar) -> str:
        if node.text not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return node.text

    return Value(convert)


def whole(lowest: int, highest: int) -> Value:
    """A whole number."""

    def convert(node: Scalar) -> int:
        if node.style == "quoted":
            raise ValueError("is text, and this is a number; remove the quotes")
        if not re.fullmatch(r"[-+]?[0-9]{1,18}", node.text):
            raise ValueError("is no whole number")
        return _within(int(node.text), lowest, highest)

    return Value(convert)


def ratio() -> Value:
    """A number from 0 to 1."""

    def convert(node: Scalar) -> float:
        if node.style == "quoted":
            raise ValueError("is text, and this is a number; remove the quotes")
        if not re.fullmatch(r"[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})", node.text):
            raise ValueError("is no number; write 0.2 for 20 %")
        return _within(float(node.text), 0.0, 1.0)

    return Value(convert)


def duration(*, zero: bool = False) -> Value:
    """A duration in seconds; `zero` tells whether it may be none at all."""

    def convert(node: Scalar) -> float:
        seconds = units.duration(node.text)
        if seconds == 0 and not zero:
            raise ValueError("is no time at all; write more than 0")
        return seconds

    return Value(convert)


def rate() -> Value:
    """A rate in messages a second."""
    return Value(lambda node: units.rate(node.text))


def octets() -> Value:
    """A size in octets, at least 1."""

    def convert(node: Scalar) -> int:
        return _within(units.size(node.text), 1, 2**40)

    return Value(convert)


def _within(number: N, lowest: N, highest: N) -> N:
    if number < lowest:
        raise ValueError(f"is too small; the least is {lowest}")
    if number > highest:
        raise ValueError(f"is too large; the most is {highest}")
    return number
