"""The commented reference."""

from __future__ import annotations

import msgspec

from config.document import Mapping, parse
from config.loader import REFERENCE, load
from config.problems import Place, Problems
from config.schema import paths
from config.settings import Settings


def test_the_reference_loads_and_says_the_defaults():
    """Save for the route and the machine's name, the reference is what `Settings()` has."""
    settings = load(REFERENCE, {})
    defaults = Settings(routes=settings.routes, hostname=settings.hostname)
    assert settings == defaults
    assert len(settings.routes) == 1


def test_the_reference_has_every_key():
    """A key that is missing there is a key that nobody finds."""
    with open(REFERENCE) as file:
        root = parse(file.read(), Place("reference"), Problems())

    def keys(node, path=""):
        for key, inner in node.entries.items():
            yield path + key
            if isinstance(inner, Mapping):
                yield from keys(inner, f"{path}{key}.")

    assert isinstance(root, Mapping)
    named = set(keys(root)) | {f"routes[0].{key}" for key in root.entries["routes"].items[0].entries}
    assert named == set(paths())


def test_the_schema_has_every_setting():
    """Each field of the settings has a key, and each key a field."""

    def fields(struct, path=""):
        for field in msgspec.structs.fields(struct):
            yield path + field.name
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                yield from fields(field.type, f"{path}{field.name}.")

    assert set(fields(Settings)) == {path for path in paths() if "[0]" not in path}
