"""The configuration, found, read and checked: every fault at once, each with its place, the key's path, and a remedy.

A fault in a password's value never shows the value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from config import document, environment, files, schema
from config.problems import ConfigError, Place, Problems, shown_path
from config.settings import Settings

__all__ = ["PLACES", "REFERENCE", "ConfigError", "find", "load"]

PLACES: Final = ("/etc/deferd/deferd.yaml", "config/deferd.yaml")
REFERENCE: Final = str(Path(__file__).with_name("deferd.yaml"))
"""The commented reference that comes with deferd: the last place that is looked at."""


def find(path: str | None, environ: Mapping[str, str] | None = None, *, origin: str = "-c names it") -> str:
    """The configuration file: `path`, else `$DEFERD_CONFIG`, else the first of `PLACES`, else the reference.

    Raises `ConfigError` where the one that was named does not exist; `origin` says where `path` comes from.
    """
    environ = os.environ if environ is None else environ
    named = path or environ.get("DEFERD_CONFIG")
    if named:
        if not _is_there(named):
            why = origin if path else "$DEFERD_CONFIG names it"
            raise ConfigError(f"{_printable(named)}: there is no such file; {why}")
        return named
    return next((place for place in PLACES if _is_there(place)), REFERENCE)


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    routes: bool = True,
    origin: str = "-c names it",
) -> Settings:
    """The settings out of the file that `find` names and the environment. Raises `ConfigError`.

    Without `routes` they are left out unread: who only drops a job or looks at the queue needs no password, and may
    not be allowed to read it.
    """
    environ = os.environ if environ is None else environ
    found = find(path, environ, origin=origin)
    problems = Problems(nearest=schema.nearest)
    root = _read(found, problems)
    environment.override(root, schema.SCHEMA, environ, problems)
    if not routes:
        root.entries["routes"] = document.Broken(root.place)
    environment.substitute(root, "", environ, problems)
    settings = schema.SCHEMA(root, "", problems)
    if routes and isinstance(settings, Settings):
        schema.check_open_files(settings.limits, root, problems)
    problems.raise_if_any()
    assert isinstance(settings, Settings)  # a reader that fails has told why
    return settings


def _is_there(path: str) -> bool:
    """Whether there is a file. One that we may not look at is there: passing over it would use another's routes."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read(path: str, problems: Problems) -> document.Mapping:
    """The file's tree. Raises `ConfigError` where there is none to go on with."""
    whole = Place(_printable(path))
    try:
        text = files.read(path, document.MOST_OCTETS).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise ConfigError(f"{whole}:{line}: is not UTF-8; save the file as such") from None
    except ValueError as error:
        raise ConfigError(f"{whole}: {error}") from None
    root = document.parse(text, whole, problems)
    if isinstance(root, document.Mapping):
        return root
    if root is not None and not isinstance(root, document.Broken):
        problems.add(whole, "", "is no mapping; it starts with a key, like 'routes:'")
    if root is not None:
        problems.raise_if_any()
    return document.Mapping({}, {}, whole)


def _printable(path: str) -> str:
    return shown_path(path)[1:-1]
