"""A job in JSON or YAML: its keys, and the job they make (README, Jobs).

It comes in two forms. A letter (`from`, `to`, `subject`, `text`, …) is composed here; a message (`sender`,
`recipients`, `message`) is taken as it is. Keys of one form in the other, unknown keys and wrong types are refused.
"""

from __future__ import annotations

import re
from datetime import datetime
from difflib import get_close_matches
from typing import Any, get_args

import msgspec

from config.units import duration
from service.message.address import first_control
from service.message.compose import Attachment, Letter, compose
from service.message.eml import complete
from service.message.job import InDoubt, Job, JobError, Priority, shown
from service.message.mailboxes import Mailbox, parse_mailboxes
from service.message.rules import Circumstances, distinct

__all__ = ["read_structured"]

_LONGEST_KEY = 255  # characters
_YEAR_10000 = 253_402_300_800.0  # in seconds since the epoch
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})? ?(?:[Zz]|[+-]\d\d:\d\d)")
_MORE_THAN_MICROSECONDS = re.compile(r"(\.\d{6})\d+")

_Lines = str | list[str]


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The file as it is written. Absent keys and nulls are the same."""

    author: str | None = msgspec.field(name="from", default=None)
    to: _Lines | None = None
    cc: _Lines | None = None
    bcc: _Lines | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    attachments: list[Attachment] | None = None
    headers: dict[str, Any] | None = None
    sender: str | None = None
    recipients: _Lines | None = None
    message: str | None = None
    not_before: str | None = None
    expires: str | int | float | None = None
    key: str | None = None
    in_doubt: InDoubt | None = None
    priority: Priority | None = None
    tags: dict[str, Any] | None = None


_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_KEYS = {
    place: [field.encode_name for field in msgspec.structs.fields(struct)]
    for place, struct in (("", _File), ("attachments", Attachment))
}
_TYPES = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_WORDS = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "null": "empty",
    "array": "a list",
    "object": "keys and values",
}
_AN_ATTACHMENT = "write {path: invoice.pdf}"
_REMEDIES = {
    "in_doubt": f"write one of {', '.join(get_args(InDoubt))}",
    "priority": f"write one of {', '.join(get_args(Priority))}",
    "expires": "write 2d, 4h, 30m",
    "attachments": "write [{path: invoice.pdf}]",
    "headers": 'write {X-Order: "17"}',
    "tags": "write {order: 17}",
}
_LETTER_KEYS = ("author", "to", "cc", "bcc", "subject", "text", "html", "attachments", "headers")


def read_structured(value: Any, circumstances: Circumstances) -> Job:
    """The job that these keys and values, read from JSON or YAML, make. Raises `JobError` with the key's path."""
    if not isinstance(value, dict):
        raise JobError("a job is a mapping of keys (from, to, subject, text, …) to values")
    try:
        file = msgspec.convert(value, _File)
    except msgspec.ValidationError as error:
        raise JobError(_told(str(error))) from None
    sender, recipients, content = (_taken if file.message is not None else _written)(file, circumstances)
    return Job(
        sender=sender,
        recipients=recipients,
        content=content,
        not_before=None if file.not_before is None else _time(file.not_before),
        expires=None if file.expires is None else _span(file.expires),
        key=None if file.key is None else _key(file.key),
        in_doubt=file.in_doubt or "retry",
        priority=file.priority or "normal",
        tags=_tags(file.tags or {}),
    )


def _told(error: str) -> str:
    """A validation error in plain words, its path first: "subject: this is a number, not text: put it in quotes"."""
    what, _, path = error.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    unknown = _UNKNOWN.search(what)
    if unknown:
        near = get_close_matches(unknown[1], _KEYS.get(path.partition("[")[0], _KEYS[""]), n=1)
        what = f"there is no key {shown(unknown[1])}: " + (f"did you mean {near[0]}?" if near else "remove it")
    elif types := _TYPES.match(what):
        wanted = dict.fromkeys(_WORDS.get(kind, kind) for kind in types[1].split(" | ") if kind != "null")
        remedy = _REMEDIES.get(path, "put it in quotes" if "text" in wanted else _AN_ATTACHMENT)
        remedy = "write it or leave it out" if types[2] == "null" else remedy
        what = f"this is {_WORDS.get(types[2], types[2])}, not {' or '.join(wanted)}: {remedy}"
    elif what.startswith("Object missing"):
        what = f"this has no path: {_AN_ATTACHMENT}"
    elif path in _REMEDIES:
        what = f"{what.removeprefix('Invalid enum value ')} is not known: {_REMEDIES[path]}"
    return f"{path}: {what}" if path else what


def _taken(file: _File, circumstances: Circumstances) -> tuple[str, tuple[str, ...], bytes]:
    """Sender, recipients and content of the form that brings a whole message."""
    for name in _LETTER_KEYS:
        if getattr(file, name) is not None:
            raise JobError(f"{name.replace('author', 'from')}: a job has this or a message, not both")
    if file.sender is None or file.recipients is None:
        missing = "sender" if file.sender is None else "recipients"
        raise JobError(f'{missing}: a job with a message needs this too (the null sender is "")')
    recipients = distinct(_addresses(file.recipients, "recipients"), circumstances.rules)
    try:
        message = (file.message or "").encode()
        return _sender(file.sender), recipients, complete(message, circumstances)
    except UnicodeEncodeError:
        raise JobError("message: it holds half of a surrogate pair") from None
    except JobError as error:
        raise JobError(f"message: {error}") if not str(error).startswith("sender") else error from None


def _written(file: _File, circumstances: Circumstances) -> tuple[str, tuple[str, ...], bytes]:
    """Sender, recipients and content of the form that brings the parts of a letter."""
    if file.recipients is not None:
        raise JobError("recipients: this goes with a message; a letter has to, cc and bcc")
    if file.author is None:
        raise JobError("from: this is missing (or sender, recipients and message, if the message is written already)")
    authors = _mailboxes(file.author, "from")
    if len(authors) != 1:
        raise JobError(f"from: {shown(file.author)} is not one address")
    to, cc, bcc = (_mailboxes(lines, name) for name, lines in (("to", file.to), ("cc", file.cc), ("bcc", file.bcc)))
    recipients = distinct((mailbox.address for mailbox in (*to, *cc, *bcc)), circumstances.rules)
    sender = authors[0].address if file.sender is None else _sender(file.sender)
    letter = Letter(
        author=authors[0],
        to=to,
        cc=cc,
        subject=file.subject,
        text=file.text,
        html=file.html,
        attachments=file.attachments or (),
        headers=_headers(file.headers or {}),
    )
    return sender, recipients, compose(letter, circumstances)


def _sender(text: str) -> str:
    if text in ("", "<>"):
        return ""
    addresses = _addresses(text, "sender")
    if len(addresses) != 1:
        raise JobError(f'sender: {shown(text)} is not one address (or "" for the null sender)')
    return addresses[0]


def _mailboxes(lines: _Lines | None, name: str) -> list[Mailbox]:
    found = []
    for line in [lines] if isinstance(lines, str) else lines or []:
        if "\t" in line:  # it may fold a header field, but nothing is folded here
            raise JobError(f"{name}: {shown(line)} holds the control character U+0009")
        try:
            found += parse_mailboxes(line)
        except JobError as error:
            raise JobError(f"{name}: {error}") from None
    return found


def _addresses(lines: _Lines, name: str) -> list[str]:
    return [mailbox.address for mailbox in _mailboxes(lines, name)]


def _headers(headers: dict[str, Any]) -> dict[str, str]:
    for name, value in headers.items():
        if not isinstance(value, str):
            raise JobError(f"headers: {shown(name)} has a value that is no text: put it in quotes")
    return headers


def _time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time (a space for the T will do, as YAML writes it)."""
    problem = JobError(f"not_before: {shown(text)} is no time with an offset: write it as 2026-12-01T08:00:00Z")
    if not _TIME.fullmatch(text) or not text.isascii():
        raise problem
    try:
        plain = _MORE_THAN_MICROSECONDS.sub(r"\1", text.upper())
        seconds = datetime.fromisoformat(plain[:11] + plain[11:].replace(" ", "")).timestamp()
    except (ValueError, OverflowError):
        raise problem from None
    if seconds >= _YEAR_10000:  # in UTC, in which results are written: RFC 3339 has four digits for a year
        raise JobError(f"not_before: {shown(text)} is beyond the year 9999 in UTC: choose an earlier time")
    return seconds


def _span(value: str | float) -> float:
    """Seconds, more than none, of a duration such as 2d or 90s; a number is seconds."""
    try:
        seconds = duration(value if isinstance(value, str) else format(value, "f"))
    except ValueError as error:
        raise JobError(f"expires: {shown(str(value))} {error}") from None
    except OverflowError:  # an integer of hundreds of digits
        raise JobError(f"expires: {shown(str(value))} is beyond ten years, or before now") from None
    if not seconds > 0:
        raise JobError("expires: nothing can be delivered in no time: write 2d, 4h, 30m")
    return seconds


def _key(text: str) -> str:
    if not 0 < len(text) <= _LONGEST_KEY or first_control(text) is not None:
        raise JobError(
            f"key: {shown(text)} is empty, longer than {_LONGEST_KEY} characters or holds a control character"
        )
    return text


def _tags(tags: dict[str, Any]) -> dict[str, Any]:
    try:
        msgspec.json.encode(tags)
    except (ValueError, OverflowError) as error:
        raise JobError(f"tags: these cannot be kept as JSON: {error}") from None
    return tags
