"""JSON and YAML from strangers: read into plain data only after size, depth and shape have been checked.

A few octets can ask for a lot: nesting that overflows a stack (PyYAML's C composer dies of it), aliases that multiply,
a key given twice of which two readers see different ones. So the pieces are looked at one by one first, and reading
stops at the first that goes too far. What `EXEMPT` names at the top may be as long as the file; all the rest, the
structure, is at most `LONGEST_STRUCTURE` octets and `DEEPEST` levels.
"""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any, Final, NoReturn

import yaml

from config.document import is_too_deep, remedy
from service.message.job import JobError, shown

__all__ = ["DEEPEST", "EXEMPT", "LONGEST_STRUCTURE", "read_json", "read_yaml"]

LONGEST_STRUCTURE: Final = 1024 * 1024
DEEPEST: Final = 20
_MOST_EVENTS: Final = 50_000  # of YAML: each takes some 20 microseconds
EXEMPT: Final = frozenset({"message", "text", "html"})

_BLANK: Final = b" \t\r\n\xef\xbb\xbf"  # also of the mark that some editors put first
_UNTIL_PIECE = re.compile(rb'[^"\[\]{}]*')
# At most 1,000 escapes at once: the engine keeps a mark for each round of a group.
_STRING_PART = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:")
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_INTEGER = re.compile(r"[-+]?[0-9]{1,4000}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_json(data: bytes) -> Any:
    """The value of a JSON text (RFC 8259) in UTF-8. Raises `JobError`."""
    text = _decoded(data)
    if text.startswith("\ufeff"):
        text, data = text[1:], data[3:]
    _check_json(data)
    try:
        value = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant, parse_float=_finite
        )
    except json.JSONDecodeError as error:
        raise JobError(f"line {error.lineno}, column {error.colno}: this is no JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise JobError(f"this is no JSON: {shown(str(error))}") from None
    if _LONE_SURROGATE.search(data):
        _refuse_surrogates(value)
    return value


def read_yaml(data: bytes) -> Any:
    """The value of a YAML document in UTF-8, by the core schema of YAML 1.2: `no` and 2026-12-01 are text.

    Raises `JobError`, also for aliases, anchors, tags, duplicate keys and keys that are no scalars.
    """
    text = _decoded(data)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        if is_too_deep(error):
            _check_depth(DEEPEST + 1)  # as the events would have, had they come
        place = f"{_place(error.problem_mark)}: " if error.problem_mark else ""
        raise JobError(": ".join((f"{place}this is no YAML: {error.problem}", *remedy(error, text)))) from None
    except yaml.YAMLError as error:
        raise JobError(f"this is no YAML: {shown(' '.join(str(error).split()))}") from None
    exempt = sum(len(text[start:end].encode()) for start, end in builder.exempt)
    _check_structure(len(data) - exempt)
    return builder.value


def _decoded(data: bytes) -> str:
    if not data.strip(_BLANK):
        raise JobError("the file is empty: write the job's keys and values (from, to, subject, text, …) into it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise JobError(
            f"line {line}: the octet 0x{data[error.start]:02X} is no UTF-8: save the file as UTF-8"
        ) from None


def _check_structure(octets: int) -> None:
    if octets > LONGEST_STRUCTURE:
        raise JobError(
            f"the job's structure, all but {', '.join(sorted(EXEMPT))}, is over {LONGEST_STRUCTURE} octets: "
            "split it, or attach what is large"
        )


def _check_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise JobError(f"the job is nested deeper than {DEEPEST} levels")


def _check_json(data: bytes) -> None:
    """Raise where the text is too deep or its structure too long. Whether it is JSON is for the parser to say."""
    position = depth = exempt = 0
    exempt_next = False
    while (position := _UNTIL_PIECE.match(data, position).end()) < len(data):  # type: ignore[union-attr]  # fits all
        _check_structure(position - exempt)
        start, piece = position, data[position]
        position += 1
        if piece == 0x22:
            position = _string_end(data, position)
            is_key = depth == 1 and not exempt_next and _COLON.match(data, position) is not None
            if exempt_next:
                exempt += position - start
            exempt_next = is_key and data[start + 1 : position - 1].decode("latin-1") in EXEMPT
        else:
            depth += 1 if piece in b"[{" else -1
            exempt_next = False
            _check_depth(depth)
    _check_structure(len(data) - exempt)


def _string_end(data: bytes, position: int) -> int:
    """The position after the string whose text starts here."""
    while True:
        found = _STRING_PART.match(data, position)
        end = found.end() if found else position
        if data[end : end + 1] == b'"':
            return end + 1
        if end == position or end >= len(data):
            line = data.count(b"\n", 0, position) + 1
            raise JobError(f"line {line}: this is no JSON: a string is not closed")
        position = end


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise JobError(f"the key {shown(name)} is there twice")
            names.add(name)
    return found


def _no_constant(name: str) -> NoReturn:
    raise JobError(f"this is no JSON: {name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise JobError(f"the number {shown(text)} is too large to be kept: write it as text")
    return number


def _refuse_surrogates(value: Any) -> None:
    """Raise where half of a surrogate pair was spelt with an escape: no text that can be sent holds one."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise JobError(
            "a text has half of a surrogate pair (\\ud800 to \\udfff by itself): write both halves"
        ) from None


class _Builder:
    """Builds the value from parser events without recursion, and checks each before it adds anything."""

    def __init__(self) -> None:
        self.value: Any = None
        self.exempt: list[tuple[int, int]] = []
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str | None] = []
        self._documents = 0
        self._exempt_length = 0
        self._events = 0

    def take(self, event: yaml.Event) -> None:
        """Add what this event brings. Raises `JobError`."""
        self._events += 1
        if self._events > _MOST_EVENTS:
            self._refuse(event, f"there are over {_MOST_EVENTS} values: split the job, or write it in JSON")
        _check_structure(_index(event.start_mark) - self._exempt_length)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse(event, "aliases and anchors (* and &) are not for jobs: write the value out")
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._enter(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse(event, "there is a second document: put each job into its own file")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if event.tag is not None:
            self._refuse(event, f"the tag {shown(event.tag)} is not for jobs: leave it out")
        if self._expects_key():
            self._key(event)
            return
        if len(self._open) == 1 and self._keys[0] in EXEMPT:
            start, end = _index(event.start_mark), _index(event.end_mark)
            self.exempt.append((start, end))
            self._exempt_length += end - start
        self._add(_scalar_value(event) if event.implicit[0] else event.value)

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], dict) and self._keys[-1] is None

    def _key(self, event: yaml.ScalarEvent) -> None:
        mapping = self._open[-1]
        if event.value in mapping:
            self._refuse(event, f"the key {shown(event.value)} is there twice")
        self._keys[-1] = event.value

    def _enter(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag is not None:
            self._refuse(event, f"the tag {shown(event.tag)} is not for jobs: leave it out")
        if self._expects_key():
            self._refuse(event, "a key is a list or a mapping: keys are text")
        collection: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._add(collection)
        self._open.append(collection)
        self._keys.append(None)
        _check_depth(len(self._open))

    def _add(self, value: Any) -> None:
        if not self._open:
            self.value = value
            return
        inside, key = self._open[-1], self._keys[-1]
        if isinstance(inside, list):
            inside.append(value)
        elif key is not None:
            inside[key] = value
            self._keys[-1] = None

    def _refuse(self, event: yaml.Event, why: str) -> NoReturn:
        raise JobError(f"{_place(event.start_mark)}: {why}")


def _index(mark: Any) -> int:
    """A mark's place in characters (a parser's events always have marks; the type stubs do not know)."""
    index: int = mark.index
    return index


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _scalar_value(event: yaml.ScalarEvent) -> Any:
    """A plain scalar's value by the core schema (YAML 1.2, 10.3); what is no word or number of it is text."""
    text: str = event.value
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return _finite(text)
    return text
