"""A dropped message (RFC 5322): whom it is from and for, and its content as it will travel.

Works on the octets of the header and copies the rest: nothing is parsed and written again, so what the contract does
not name arrives as it was. The decisions that the contract leaves open:

* The header ends at the blank line or at the first line that is no field, whichever comes first (as Python's email
  package and most receivers see it). A message whose first line is no field has no header at all: the fields that are
  added then get a blank line after them, so that its text does not become a header.
* A leading `From ` line (an mbox separator) stays, with the added fields before it, and is no reason to end the header.
* `Resent-` fields tell of an earlier sending (RFC 5322, 3.6.6): they are neither read nor removed.
* X-Sender and X-Receiver fields may be folded; X-Receiver may list several addresses. Where the block at the top has
  only one of the two, the other is taken from the message's own fields.
* Priority (RFC 2156) is the field for how urgent the transfer is. It stays, and what it cannot say means nothing. Not
  read are Importance and X-Priority, which are for the reader, and Precedence, which no standard has and which is often
  in mail that must not wait, to keep vacation replies away.
* Header fields with control characters are refused (a bare CR has become a space before, as everywhere).
"""

from __future__ import annotations

import re

import msgspec

from service.message.address import check_sender
from service.message.job import Job, JobError, Priority, shown
from service.message.mailboxes import addresses_in
from service.message.rules import Circumstances, ReadingRules, distinct
from service.message.wire import normalise

__all__ = ["complete", "field_of", "header_of", "read_eml"]

# The content has been normalised before any of these is applied: each CR begins a CRLF. A header may hold millions of
# lines, so they are searched for by their line end and never matched as a repeated group, whose rounds cost memory.
_ENVELOPE_NAME = re.compile(rb"(x-sender|x-receiver)[ \t]*:", re.IGNORECASE)
_KNOWN_NAME = re.compile(rb"\r\n(bcc|date|message-id|return-path|sender|from|to|cc|priority)[ \t]*:", re.IGNORECASE)
_ANY_NAME = re.compile(rb"[!-9;-~]++[ \t]*+:")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_HEADER_END = re.compile(rb"\r\n(?![ \t]|[!-9;-~]++[ \t]*+:)")
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PRIORITIES: dict[bytes, Priority] = {b"urgent": "high", b"normal": "normal", b"non-urgent": "bulk"}
_SPARE_FIELDS = 1000  # fields that are read beyond one for each recipient: no honest header has as many
_ADDRESS_TEXT = 1024 * 1024  # octets of address fields that are read, or 1 KiB a recipient where that is more


class _Field(msgspec.Struct, frozen=True):
    """A field that this module reads or removes: its name in lower case, its place, and its value, still folded."""

    name: str
    start: int
    end: int
    value: bytes


class _Header(msgspec.Struct, frozen=True):
    """A message's header: where it starts (after the envelope's block) and ends, and by name the fields of interest."""

    start: int
    end: int
    fields: dict[str, list[_Field]]

    def values(self, *names: str) -> list[_Field]:
        return [field for name in names for field in self.fields.get(name, ())]


def read_eml(data: bytes, circumstances: Circumstances) -> Job:
    """The job that this message is (README, Jobs). Raises `JobError`."""
    rules = circumstances.rules
    content = normalise(data)
    block, start = _envelope_block(content, rules)
    header = _scan(content, start, rules)
    budget = _Budget(rules)
    senders = [field for field in block if field.name == "x-sender"]
    if len(senders) > 1:
        raise JobError("there are two X-Sender lines: a message has one sender")
    sender = _one_sender(senders[0], budget) if senders else _sender_of(header, budget)
    receivers = [field for field in block if field.name == "x-receiver"] or header.values("to", "cc", "bcc")
    recipients = distinct((address for field in receivers for address in _addresses(field, budget)), rules)
    content = _completed(content, header, circumstances)
    return Job(sender=sender, recipients=recipients, content=content, priority=_priority(header))


def complete(data: bytes, circumstances: Circumstances) -> bytes:
    """A message whose envelope is known, ready for the wire: Bcc removed, Date and Message-ID added where missing."""
    content = normalise(data)
    return _completed(content, _scan(content, 0, circumstances.rules), circumstances)


def header_of(content: bytes) -> bytes:
    """The header of normalised content: its fields, without the blank line after them."""
    return content[: _header_end(content, 0)]


def field_of(content: bytes, name: str) -> str | None:
    """The unfolded value of the first header field of this name in normalised content, or None."""
    header = b"\r\n" + header_of(content)
    found = re.search(rb"\r\n(" + re.escape(name.encode()) + rb")[ \t]*:", header, re.IGNORECASE)
    if found is None:
        return None
    return _unfolded(_field(header, found, found.start() + 2).value)


def _envelope_block(content: bytes, rules: ReadingRules) -> tuple[list[_Field], int]:
    """The X-Sender and X-Receiver fields at the very top, and where what follows them starts."""
    fields: list[_Field] = []
    position = 0
    while found := _ENVELOPE_NAME.match(content, position):
        if len(fields) > rules.recipients + _SPARE_FIELDS:
            raise JobError(f"there are more than {len(fields) - 1} X-Receiver lines: split the job")
        fields.append(_field(content, found, position))
        position = fields[-1].end
    return fields, position


def _scan(content: bytes, start: int, rules: ReadingRules) -> _Header:
    """Find the header's end and the fields of interest in it. Raises `JobError` for a control character in it."""
    end = _header_end(content, start)
    control = _CONTROL.search(content, 0, end)
    if control:
        line = content.count(b"\n", 0, control.start()) + 1
        raise JobError(f"line {line}, in the header, holds the control character U+{control.group()[0]:04X}")
    header = b"\r\n" + content[start:end]
    shift = start - 2
    fields: dict[str, list[_Field]] = {}
    for number, found in enumerate(_KNOWN_NAME.finditer(header)):
        if number > rules.recipients + _SPARE_FIELDS:
            raise JobError(f"the header has more than {number - 1} address fields and dates: that is no message")
        field = _field(header, found, found.start() + 2, shift)
        fields.setdefault(field.name, []).append(field)
    return _Header(start, end, fields)


def _header_end(content: bytes, start: int) -> int:
    """Where the header that starts here ends: the start itself where there is none."""
    position = _past_separator(content, start)
    if not _ANY_NAME.match(content, position):
        return position
    end = _HEADER_END.search(content, position)
    return end.end() if end else len(content)


def _past_separator(content: bytes, start: int) -> int:
    """The position after an mbox `From ` line, where a header (or the blank line that ends an empty one) follows it."""
    if not content.startswith(b"From ", start) or _ANY_NAME.match(content, start):
        return start
    after = content.find(b"\r\n", start) + 2
    return after if content.startswith(b"\r\n", after) or _ANY_NAME.match(content, after) else start


def _field(octets: bytes, name: re.Match[bytes], start: int, shift: int = 0) -> _Field:
    """The field whose name was found; `shift` is added to its places."""
    end = _FIELD_END.search(octets, name.end())
    last, after = (end.start(), end.end()) if end else (len(octets), len(octets))
    return _Field(name.group(1).decode().lower(), start + shift, after + shift, octets[name.end() : last])


class _Budget:
    """How many octets of address fields may still be read: they are parsed in Python, on the reactor's thread."""

    def __init__(self, rules: ReadingRules) -> None:
        self.rules = rules
        self._left = max(_ADDRESS_TEXT, 1024 * rules.recipients)

    def text(self, field: _Field) -> str:
        """The field's value as text. 8-bit octets that are no UTF-8 are tolerated in names, where they do no harm."""
        self._left -= len(field.value)
        if self._left < 0:
            raise JobError(f"the address fields are too long (at {_title(field)}): split the job")
        return _unfolded(field.value)


def _addresses(field: _Field, budget: _Budget) -> list[str]:
    try:
        return addresses_in(budget.text(field), budget.rules.domain)
    except JobError as error:
        raise JobError(f"{_title(field)}: {error}") from None


def _one_sender(field: _Field, budget: _Budget) -> str:
    """The address in X-Sender or Return-Path, which may be the null sender."""
    if field.value.strip() == b"<>":
        return ""
    addresses = _addresses(field, budget)
    if len(addresses) != 1:
        raise JobError(f"{_title(field)}: {shown(budget.text(field))} is not one address (or <> for the null sender)")
    return check_sender(addresses[0])


def _sender_of(header: _Header, budget: _Budget) -> str:
    """The envelope sender by the message's own fields. Of several authors the first is the one to tell of trouble."""
    for field in header.values("return-path"):
        return _one_sender(field, budget)
    for field in header.values("sender", "from"):
        for address in _addresses(field, budget):
            return address
    raise JobError(
        "there is no sender: begin the file with X-Sender: and X-Receiver: lines (a byte order mark or a blank line "
        "before them hides them), or give the message a From field"
    )


def _priority(header: _Header) -> Priority:
    """By the first Priority field."""
    for field in header.values("priority"):
        return _PRIORITIES.get(field.value.strip().lower(), "normal")
    return "normal"


def _completed(content: bytes, header: _Header, circumstances: Circumstances) -> bytes:
    """The content with Bcc removed and with Date and Message-ID at the top where they were missing."""
    added = b""
    if "date" not in header.fields:
        added = f"Date: {circumstances.date()}\r\n".encode()
    if "message-id" not in header.fields:
        added += f"Message-ID: {circumstances.message_id()}\r\n".encode()
    blind = header.values("bcc")
    if not added and not blind and not header.start:
        return content
    view = memoryview(content)  # so that a large message is copied once and not twice
    kept: list[bytes | memoryview] = [added]
    position = header.start
    for field in blind:
        kept.append(view[position : field.start])
        position = field.end
    if position == header.end and not any(kept[1:]) and not content.startswith(b"\r\n", position):
        kept.append(b"\r\n")  # no field of its own is left: what follows is text, and must not join the header
    kept.append(view[position:])
    return b"".join(kept)


def _unfolded(value: bytes) -> str:
    """A field's value as text in one line (RFC 5322, 2.2.3)."""
    return value.replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")


def _title(field: _Field) -> str:
    return "-".join(part.capitalize() for part in field.name.split("-"))
