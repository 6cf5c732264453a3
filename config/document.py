"""YAML read into a tree in which every value knows its line.

Built from the parser's events, which are bounded first: PyYAML composes recursively in C and dies on hostile nesting.
No aliases, no tags, no duplicate keys, one document. What a scalar means (a number, a switch, a text) is not decided
here but by the key that it belongs to, so that YAML 1.1's surprises (`no`, `1:30`, `012`) cannot happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

import yaml

from config.problems import Place, Problems, shown

MOST_OCTETS: Final = 1024 * 1024
DEEPEST: Final = 20
# libyaml's words for its own bound: "exceeded maximum nesting depth", or "Maximum nesting level reached".
_TOO_DEEP: Final = "nesting"
# What it says, and the one in Python, where there is more of a line than it can take.
_MISPLACED: Final = ("mapping values are not", "did not find expected key", "expected <block end>", "found character")
_DEPTH: Final = f"is nested more than {DEEPEST} levels deep"

Style = Literal["plain", "quoted", "loose"]


@dataclass(slots=True)
class Scalar:
    """One value as written. `loose` text came from the environment: the key alone decides what it is.

    `source` is what may be shown in an error: the text as it stood in the file, before a secret was put into it.
    """

    text: str
    style: Style
    place: Place
    source: str

    @property
    def null(self) -> bool:
        """Whether it stands for no value."""
        names = ("", "~", "null", "Null", "NULL")
        return (self.style == "plain" and self.text in names) or (self.style == "loose" and self.text in names[1:])


@dataclass(slots=True)
class Sequence:
    """A list."""

    items: list[Node]
    place: Place


@dataclass(slots=True)
class Mapping:
    """Keys and values; `places` has each key's own line."""

    entries: dict[str, Node]
    places: dict[str, Place]
    place: Place


@dataclass(slots=True)
class Broken:
    """A value whose fault has been told already."""

    place: Place


Node = Scalar | Sequence | Mapping | Broken


def parse(text: str, whole: Place, problems: Problems) -> Node | None:
    """The tree of the document in `text`, None where there is none; what is wrong goes to `problems`.

    `whole` is a file, and each node gets its line; or it is one line or a variable, and that is every node's place.
    """
    if len(text) > MOST_OCTETS:
        problems.add(whole, "", f"is larger than {MOST_OCTETS} characters")
        return Broken(whole)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(whole, problems).build(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = whole if mark is None else _line(whole, mark.line)
        if is_too_deep(error):
            problems.add(place, "", _DEPTH)
            return Broken(whole)
        why = ", ".join(part for part in (error.context, error.problem) if part)
        problems.add(place, "", "; ".join((f"is no YAML: {why}", *remedy(error, text))))
    except UnicodeError:
        problems.add(whole, "", "is not UTF-8")
    except yaml.YAMLError as error:
        problems.add(whole, "", f"is no YAML: {shown(str(error), 200)}")
    return Broken(whole)


def is_too_deep(error: yaml.MarkedYAMLError) -> bool:
    """Whether the parser refused because of depth, before it gave us the events that would have shown it.

    Newer ones look ahead and stop at some 1,000 levels; older ones have no bound but ours, on the events.
    """
    return _TOO_DEEP in (error.problem or "")


def remedy(error: yaml.MarkedYAMLError, text: str) -> tuple[str, ...]:
    """What to do about the parser's error in `text`: one sentence, or none where its own words must do."""
    mark, problem = error.problem_mark, error.problem or ""
    if mark is None:
        return ()
    if text[mark.index : mark.index + 1] == "\t":
        return ("it is a tab, so put spaces in its place",)
    if not problem.startswith(_MISPLACED):
        return ()
    before = text[text.rfind("\n", 0, mark.index) + 1 : mark.index]
    if ": " in before:
        return ("put the value in quotes, all of it",)
    return ("begin keys that belong together in one column",)


def _line(whole: Place, number: int) -> Place:
    """The place of line `number`, from 0, of a file; anything else is one place."""
    return Place(whole.source, number + 1) if whole.is_file else whole


class _Refused(Exception):
    """The document cannot be built further."""


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being filled; `key` is the one whose value is to come."""

    node: Sequence | Mapping
    path: str
    key: Scalar | None = None

    def path_of_next(self) -> str:
        """The path of the value that comes next."""
        if isinstance(self.node, Sequence):
            return f"{self.path}[{len(self.node.items)}]"
        name = self.key.text if self.key is not None else "?"
        return f"{self.path}.{name}" if self.path else name


class _Builder:
    """Puts nodes together from events, without recursion."""

    def __init__(self, whole: Place, problems: Problems) -> None:
        self._whole = whole
        self._problems = problems
        self._open: list[_Open] = []
        self._root: Node | None = None

    def build(self, events: Iterator[yaml.Event]) -> Node | None:
        """The tree; `Broken` where it was refused."""
        documents = 0
        for event in events:
            documents += isinstance(event, yaml.DocumentStartEvent)
            try:
                if documents > 1:
                    self._refuse(event, "has more than one document; keep one")
                self._take(event)
            except _Refused:
                return Broken(self._whole)
        return self._root

    def _take(self, event: yaml.Event) -> None:
        if getattr(event, "anchor", None) is not None:
            self._refuse(event, "uses an anchor or an alias; write the value out")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, "uses a tag; write the value without it")
        place = self._place(event)
        if isinstance(event, yaml.ScalarEvent):
            style: Style = "quoted" if event.style else "plain"
            self._put(Scalar(event.value, style, place, event.value), event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._enter(Sequence([], place), event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._enter(Mapping({}, {}, place), event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()

    def _enter(self, node: Sequence | Mapping, event: yaml.Event) -> None:
        if len(self._open) >= DEEPEST:
            self._refuse(event, _DEPTH)
        path = self._open[-1].path_of_next() if self._open else ""
        self._put(node, event)
        self._open.append(_Open(node, path))

    def _put(self, node: Node, event: yaml.Event) -> None:
        if not self._open:
            self._root = node
            return
        around = self._open[-1]
        if isinstance(around.node, Sequence):
            around.node.items.append(node)
        elif around.key is not None:
            self._put_value(around, around.node, around.key, node)
            around.key = None
        elif isinstance(node, Scalar):
            around.key = node
        else:
            self._refuse(event, "has a list or a mapping for a key")

    def _put_value(self, around: _Open, mapping: Mapping, key: Scalar, node: Node) -> None:
        first = mapping.places.get(key.text)
        if first is not None:
            where = f" (first on line {first.line})" if first.line else ""
            self._problems.add(key.place, around.path_of_next(), f"is given twice{where}; remove one")
            return
        mapping.entries[key.text] = node
        mapping.places[key.text] = key.place

    def _place(self, event: yaml.Event) -> Place:
        assert event.start_mark is not None  # the parser's events have marks; the type does not say so
        return _line(self._whole, event.start_mark.line)

    def _refuse(self, event: yaml.Event, what: str) -> NoReturn:
        self._problems.add(self._place(event), "", what)
        raise _Refused
