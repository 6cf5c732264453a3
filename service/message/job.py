"""A job: what an application asked for, checked, and its content ready for the wire."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

InDoubt = Literal["retry", "hold"]
Priority = Literal["high", "normal", "bulk"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One message for one or more recipients.

    `sender` and `recipients` are checked addresses as they were written (`sender` is "" for the null sender);
    `recipients` holds no address twice. `content` is the message ready for the wire but for dot-stuffing: every line
    ends in CRLF, there is no bare CR or LF and no NUL, and it ends with CRLF. `not_before` is in seconds since the
    epoch; `expires` is in seconds after acceptance, or after `not_before`; None leaves both to the configuration.
    `priority` is for us alone: which of the messages for a site goes first.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    not_before: float | None = None
    expires: float | None = None
    key: str | None = None
    in_doubt: InDoubt = "retry"
    priority: Priority = "normal"
    tags: dict[str, Any] = {}


class JobError(Exception):
    """A file is no job. The message names the offender and says how to mend it; it becomes the `.why`."""


def shown(text: str, most: int = 80) -> str:
    """`text` quoted for a message to a person: what cannot be printed is escaped, and after `most` characters cut."""
    return repr(text if len(text) <= most else text[: most - 1] + "…")
