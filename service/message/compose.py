"""A letter made into a message: text, HTML and attachments by the standard email package, header fields by ours.

The result is ready for the wire, and 7-bit unless an address is not. The same letter in the same circumstances is the
same message, octet for octet: Date, Message-ID and the boundaries come from what is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.message import EmailMessage
from hashlib import sha256

import msgspec

from service.message.address import first_control
from service.message.fields import address_field, field, text_field
from service.message.job import JobError, shown
from service.message.mailboxes import Mailbox, parse_mailboxes
from service.message.mime import POLICY
from service.message.payload import in_base64, text_payload
from service.message.rules import Circumstances

__all__ = ["Attachment", "Letter", "compose"]

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_HALF = r"[A-Za-z0-9!#$%&'*+^_`{|}~.-]{1,127}"
_TYPE = re.compile(rf"({_HALF})/({_HALF})")
# What a job says with keys of its own, or what only this module can say rightly.
_STRUCTURAL = {
    **{name: f"use the key {name!r}" for name in ("from", "to", "cc", "bcc", "subject")},
    **dict.fromkeys(("return-path", "x-sender"), "use the key 'sender'"),
    "x-receiver": "use the keys 'to', 'cc' and 'bcc'",
    "mime-version": "it is written by deferd",
    "received": "it is written by servers",
}
_ADDRESS_FIELDS = frozenset({"reply-to", "sender", "mail-followup-to", "mail-reply-to", "disposition-notification-to"})
_TYPES = {
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "pdf": "application/pdf",
    "png": "image/png",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rtf": "application/rtf",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "webp": "image/webp",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file to attach. Without `name` it is called as its path ends; without `type` that is told by its ending."""

    path: str
    name: str | None = None
    type: str | None = None


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What a message is made from; the addresses have been checked, nothing else has."""

    author: Mailbox
    to: Sequence[Mailbox] = ()
    cc: Sequence[Mailbox] = ()
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    attachments: Sequence[Attachment] = ()
    headers: dict[str, str] = {}


def compose(letter: Letter, circumstances: Circumstances) -> bytes:
    """The message, ready for the wire. Raises `JobError`."""
    fields = _header(letter, circumstances)
    content = fields + _body(letter, circumstances)
    _check_size(len(content), circumstances)
    return content


def _header(letter: Letter, circumstances: Circumstances) -> bytes:
    """All fields but those of MIME."""
    for name, value in letter.headers.items():
        _check_field(name, value)
    given = {name.lower() for name in letter.headers}
    if len(given) != len(letter.headers):
        raise JobError("headers: a name is there twice (upper and lower case are the same)")
    fields = []
    if "date" not in given:
        fields.append(field("Date", circumstances.date()))
    if "message-id" not in given:
        fields.append(field("Message-ID", circumstances.message_id()))
    fields.append(address_field("From", [letter.author]))
    fields += [address_field(name, boxes) for name, boxes in (("To", letter.to), ("Cc", letter.cc)) if boxes]
    if letter.subject is not None:
        _refuse_controls("subject", letter.subject)
        fields.append(text_field("Subject", letter.subject))
    fields += [_given_field(name, value) for name, value in letter.headers.items()]
    return b"".join(fields)


def _check_field(name: str, value: str) -> None:
    """Raise `JobError` where a job may not set this field, or not to this."""
    if not _FIELD_NAME.fullmatch(name):
        raise JobError(f"headers: {shown(name)} is no field name: up to 76 printable ASCII characters without a colon")
    lower = name.lower()
    remedy = "it is written by deferd" if lower.startswith("content-") else _STRUCTURAL.get(lower)
    if remedy is not None:
        raise JobError(f"headers: {name} cannot be set here: {remedy}")
    _refuse_controls(f"headers: {name}", value)


def _given_field(name: str, value: str) -> bytes:
    if name.lower() not in _ADDRESS_FIELDS:
        return text_field(name, value)
    try:
        return address_field(name, parse_mailboxes(value))
    except JobError as error:
        raise JobError(f"headers: {name}: {error}") from None


def _refuse_controls(what: str, value: str) -> None:
    control = first_control(value)
    if control is not None:
        raise JobError(f"{what}: {shown(value)} holds the control character U+{ord(control):04X}: leave it out")


def _body(letter: Letter, circumstances: Circumstances) -> bytes:
    """The MIME entity: the text or texts, and around them the attachments."""
    message = EmailMessage(policy=POLICY)
    files = _files(letter, circumstances)
    boundary = _boundary(letter, circumstances)
    payloads = _Payloads(boundary)
    if letter.text is not None or letter.html is None:
        payloads.set_text(message, "text", letter.text or "", "plain")
        if letter.html is not None:
            message.make_alternative(boundary=boundary + "a")
            html = EmailMessage(policy=POLICY)
            payloads.set_text(html, "html", letter.html, "html")
            message.attach(html)
    else:
        payloads.set_text(message, "html", letter.html, "html")
    if files:
        message.make_mixed(boundary=boundary + "m")
    for attachment, data in files:
        payloads.attach(message, attachment, data)
    for part in list(message.walk())[1:]:
        del part["MIME-Version"]  # it belongs to the message, not to its parts (RFC 2045, 4)
    return payloads.fill(message.as_bytes(policy=POLICY))


class _Payloads:
    """What the parts hold, kept out of the email package: it lays out the parts, each with a mark for its content."""

    def __init__(self, boundary: str) -> None:
        self._boundary = boundary
        self._held: list[tuple[bytes, bytes]] = []

    def set_text(self, part: EmailMessage, what: str, text: str, subtype: str) -> None:
        """Make `part` a text; `what` names it in the `JobError` that a NUL raises."""
        try:
            encoding, payload = text_payload(text)
        except JobError as error:
            raise JobError(f"{what}: {error}") from None
        part.set_content(self._mark(payload), subtype=subtype, charset="utf-8", cte="7bit")
        part.replace_header("Content-Transfer-Encoding", encoding)

    def attach(self, message: EmailMessage, attachment: Attachment, data: bytes) -> None:
        """Add a file to `message`, which is multipart/mixed."""
        name = attachment.name or attachment.path.rpartition("/")[2]
        main, sub = _type_of(attachment, name)
        part = EmailMessage(policy=POLICY)
        part.set_content(b"", maintype=main, subtype=sub, disposition="attachment", filename=name)
        part.set_payload(self._mark(in_base64(data)))
        message.attach(part)

    def fill(self, octets: bytes) -> bytes:
        """The message with each mark's line, in the order in which they were set, replaced by its payload."""
        pieces = []
        for mark, payload in self._held:
            before, _, octets = octets.partition(mark)
            pieces += [before, payload]
        return b"".join([*pieces, octets])

    def _mark(self, payload: bytes) -> str:
        mark = f"{self._boundary}p{len(self._held)}"
        self._held.append((mark.encode() + b"\r\n", payload))
        return mark + "\n"


def _files(letter: Letter, circumstances: Circumstances) -> list[tuple[Attachment, bytes]]:
    """Each attachment with its octets; their sum is checked as they come, so that no more than one is too many."""
    files = []
    size = 0
    for attachment in letter.attachments:
        name = attachment.name or attachment.path
        _refuse_controls("attachments: name" if attachment.name else "attachments: path", name)
        _refuse_controls("attachments: path", attachment.path)
        if len(name.rpartition("/")[2]) > 255 or not attachment.path:
            raise JobError(f"attachments: {shown(name)} is empty or longer than 255 characters")
        data = circumstances.open_attachment(attachment.path)
        size += len(data) * 4 // 3
        _check_size(size, circumstances)
        files.append((attachment, data))
    return files


def _check_size(octets: int, circumstances: Circumstances) -> None:
    most = circumstances.rules.message_size
    if octets > most:
        raise JobError(
            f"the message is over {most} octets with its attachments: send less, or raise limits.message_size"
        )


def _type_of(attachment: Attachment, name: str) -> tuple[str, str]:
    """The media type's two halves (RFC 2045, 5.1)."""
    text = attachment.type or _TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
    found = _TYPE.fullmatch(text)
    if found is None:
        raise JobError(f"attachments: {shown(text)} is no media type: write it as application/pdf")
    if found[1].lower() in ("multipart", "message"):
        raise JobError(f"attachments: {shown(text)} cannot be attached as such: use application/octet-stream")
    return found[1].lower(), found[2].lower()


def _boundary(letter: Letter, circumstances: Circumstances) -> str:
    """A boundary that stands in no part: it is made from them, and from a name that their author did not know."""
    digest = sha256(circumstances.unique().encode())
    for text in (letter.text, letter.html):
        digest.update((text or "").encode())
    return f"=_{digest.hexdigest()[:40]}"
