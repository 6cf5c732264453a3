"""What the environment puts into the configuration: `${NAME}` in values, and whole keys by `DEFERD_` variables.

`${NAME}` is the variable's value, `${NAME:-default}` the default where it is unset or empty, `$${` a literal `${`.
What was put in is taken as text and never looked through again. `DEFERD_RETRY__MAX_AGE=2d` sets `retry.max_age`;
`DEFERD_ROUTES__0__PASSWORD` sets the first route's. A list or a mapping is written as in YAML, `[1m, 5m]`. A variable
that is no key, but near one, is an error; one that is near none is another program's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from config import document
from config.document import Broken, Node, Scalar, Sequence
from config.problems import Place, Problems
from config.readers import Many, Reader, Section, joined, unfolded, unknown

PREFIX: Final = "DEFERD_"
NOT_KEYS: Final = frozenset(("DEFERD_CONFIG",))

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)(\})?")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Kubernetes sets these in every container beside a service that is called deferd
_OF_KUBERNETES: Final = re.compile(r"DEFERD_(?:SERVICE_(?:HOST|PORT(?:_.*)?)|PORT(?:_[0-9]+_.*)?)")


def substitute(node: Node, path: str, environ: Mapping[str, str], problems: Problems) -> Node:
    """The tree with every reference in its values replaced."""
    if isinstance(node, Sequence):
        node.items = [substitute(item, f"{path}[{n}]", environ, problems) for n, item in enumerate(node.items)]
    elif isinstance(node, document.Mapping):
        node.entries = {k: substitute(v, joined(path, k), environ, problems) for k, v in node.entries.items()}
    elif isinstance(node, Scalar) and node.style != "loose" and "${" in node.text:
        return _filled(node, path, environ, problems)
    return node


def _filled(node: Scalar, path: str, environ: Mapping[str, str], problems: Problems) -> Node:
    faults: list[str] = []

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, has_default, default = match[1].partition(":-")
        if match[2] is None or not _NAME.fullmatch(name):
            faults.append("has a ${ that names no variable; write ${NAME}, ${NAME:-default}, or $${ for the signs")
            return ""
        found = environ.get(name)
        if has_default:
            return found or default
        if found is None:
            faults.append(f"needs the variable {name}, which is not set; set it or write ${{{name}:-default}}")
        return found or ""

    text = _REFERENCE.sub(value, node.text)
    for fault in faults:
        problems.add(node.place, path, fault)
    return Broken(node.place) if faults else Scalar(text, "loose", node.place, node.source)


def override(root: document.Mapping, schema: Section, environ: Mapping[str, str], problems: Problems) -> None:
    """Put the values of all `DEFERD_` variables into the tree, the shorter paths first."""
    names = [name for name in environ if name.startswith(PREFIX) and name not in NOT_KEYS]
    for name in sorted(names, key=lambda name: (name.count("__"), name)):
        if _OF_KUBERNETES.fullmatch(name):
            continue
        place = Place(name, variable=True)
        keys = name.removeprefix(PREFIX).lower().split("__")
        if keys[0] not in schema.keys and problems.nearest(".".join(keys)) is None:
            continue  # somebody else's: no key begins like it, and none is near
        if not _set(root, schema, keys, Scalar(environ[name], "loose", place, environ[name]), problems):
            problems.add(place, "", unknown(".".join(keys), problems))


def _set(root: Node, schema: Reader, keys: list[str], value: Scalar, problems: Problems) -> bool:
    """Set the value at the end of `keys`, making the sections on the way; False where there is no such key."""
    node: Node = root
    for number, key in enumerate(keys):
        last = number == len(keys) - 1
        if isinstance(schema, Section) and key in schema.keys:
            schema = schema.keys[key]
            if not isinstance(node, document.Mapping):
                return True  # the file has something else here, and that is told when it is read
            inner = value if last else _inside(node.entries.get(key), schema, value.place, problems)
            node.entries[key] = inner
            node.places[key] = value.place if last else node.places.get(key, value.place)
        elif isinstance(schema, Many) and key.isdecimal():
            schema = schema.item
            if not isinstance(node, Sequence) or int(key) > len(node.items):
                return False
            before = node.items[int(key)] if int(key) < len(node.items) else None
            inner = value if last else _inside(before, schema, value.place, problems)
            node.items[int(key) : int(key) + 1] = [inner]
        else:
            return False
        node = inner
    return True


def _inside(node: Node | None, schema: Reader, place: Place, problems: Problems) -> Node:
    """The section or list to go on in: the one that is there, or a new one."""
    node = None if node is None else unfolded(node, problems)
    if isinstance(schema, Many):
        if isinstance(node, Scalar) and not node.null:
            return Sequence([node], node.place)  # one item alone
        return Sequence([], place) if node is None or isinstance(node, Scalar) else node
    if node is None or (isinstance(node, Scalar) and node.null):
        return document.Mapping({}, {}, place)
    return node
