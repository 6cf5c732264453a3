"""Reports to a message's sender (RFC 3464 in RFC 6522's envelope; RFC 6533 where an address is not ASCII).

A failure report tells which recipients will not get the message and why; a delay warning, which have not got it yet.
Both go out with the null sender, and none is ever written about a message that has it: a report begets no report.
"""

from __future__ import annotations

from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import EmailMessage
from hashlib import sha256
from ipaddress import ip_address
from textwrap import wrap
from typing import Literal

import msgspec

from service.message.address import ascii_form
from service.message.eml import field_of, header_of
from service.message.fields import address_field, field, text_field
from service.message.job import Job
from service.message.mailboxes import Mailbox
from service.message.mime import POLICY
from service.message.outcome import Outcome, Phase
from service.message.rules import mail_date

__all__ = ["Undelivered", "bounce", "delay_warning"]

_IN = "    "
_SMALL = 16 * 1024  # octets: up to this the whole message goes back, beyond it the header only
_LONGEST_HEADER = 64 * 1024  # octets of the header that go back
_LONGEST_SUBJECT = 200  # characters
_LONGEST_TEXT = 900  # characters of a server's answer, so that no line is too long for mail


class Undelivered(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a message that did not arrive, or not yet.

    `id` is the job's; `content` the message as stored, or as much of its beginning as is at hand (64 KiB will do), and
    `size` its whole size in octets. `outcomes` has the recipients that the report is about, and no others. `hostname`
    is ours, as the configuration has it. `now` is when the report is written and `arrived` when the job was accepted;
    `retry_until` is when deferd gives up (delay warnings only). Times are in seconds since the epoch.
    """

    id: str
    sender: str
    content: bytes
    size: int
    outcomes: tuple[Outcome, ...]
    hostname: str
    arrived: float
    now: float
    retry_until: float | None = None


def bounce(facts: Undelivered) -> Job | None:
    """The failure report for the sender, from the null sender; None where the sender is the null sender."""
    return _report(facts, "failed")


def delay_warning(facts: Undelivered) -> Job | None:
    """The warning that the message is late; None where the sender is the null sender."""
    return _report(facts, "delayed")


def _report(facts: Undelivered, action: Literal["failed", "delayed"]) -> Job | None:
    if not facts.sender or not facts.outcomes:
        return None
    boundary = _boundary(facts, action)
    parts = [_human_part(facts, action), _status_part(facts, action), _returned_part(facts)]
    content = _header(facts, action, boundary)
    content += b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
    return Job(sender="", recipients=(facts.sender,), content=content + b"--%b--\r\n" % boundary)


def _boundary(facts: Undelivered, action: str) -> bytes:
    """A boundary that stands in no part, as it is made from all of them."""
    digest = sha256(f"{facts.id} {action} {facts.now} {facts.outcomes}".encode())
    digest.update(facts.content)
    return b"=_" + digest.hexdigest()[:40].encode()


def _header(facts: Undelivered, action: str, boundary: bytes) -> bytes:
    subject = "Your message could not be delivered" if action == "failed" else "Your message is late"
    name = sha256(boundary).hexdigest()[:24]
    fields = [
        field("Date", mail_date(facts.now)),
        field("Message-ID", f"<{name}@{facts.hostname}>"),
        field("From", f"Mail Delivery System <MAILER-DAEMON@{facts.hostname}>"),
        address_field("To", [Mailbox("", facts.sender)]),
        text_field("Subject", subject),
        field("Auto-Submitted", "auto-replied"),
    ]
    original = field_of(facts.content, "message-id")
    if original and original.isascii() and len(original) <= _LONGEST_TEXT:
        fields += [field("In-Reply-To", original), field("References", original)]
    fields.append(b"MIME-Version: 1.0\r\n")
    fields.append(
        b'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="%b"\r\n'
        b"Content-Transfer-Encoding: %b\r\n\r\n" % (boundary, _encoding_of_all(facts))
    )
    return b"".join(fields)


def _encoding_of_all(facts: Undelivered) -> bytes:
    addresses = all(_final(outcome).isascii() for outcome in facts.outcomes)
    return b"7bit" if addresses and _returned(facts)[1].isascii() else b"8bit"


def _human_part(facts: Undelivered, action: str) -> bytes:
    lines = [f"This is deferd at {facts.hostname}.", ""]
    if action == "failed":
        lines += ["Your message could not be delivered to the recipients below,", "and will not be tried again."]
    else:
        lines += ["Your message has not been delivered to the recipients below yet.", "You need not send it again:"]
        until = "" if facts.retry_until is None else f" until {mail_date(facts.retry_until)}"
        lines += [f"it will be tried further{until}."]
    lines += ["", f"It was accepted on {mail_date(facts.arrived)}."]
    subject = field_of(facts.content, "subject")
    if subject:
        lines.append(f"Its subject: {_readable(subject)}")
    for outcome in facts.outcomes:
        lines += ["", f"<{outcome.address}>"]
        if outcome.said is not None:
            lines.append(f"{_IN}The time for its delivery is over. What the last try brought:")
        where = f"{outcome.host}: " if outcome.host else ""
        lines += wrap(_printable(where + outcome.answer), initial_indent=_IN, subsequent_indent=_IN)
    part = EmailMessage(policy=POLICY)
    text = "".join(f"{line}\n" for line in lines)
    part.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    del part["MIME-Version"]
    return part.as_bytes()


def _status_part(facts: Undelivered, action: str) -> bytes:
    """The part for programs (RFC 3464, 2): a block about the message, then one about each recipient."""
    fields = field("Reporting-MTA", f"dns; {facts.hostname}")
    fields += field("Arrival-Date", mail_date(facts.arrived)) + field("X-Deferd-ID", _printable(facts.id))
    for outcome in facts.outcomes:
        fields += b"\r\n" + _about(outcome, facts, action)
    if all(_final(outcome).isascii() for outcome in facts.outcomes):
        return b"Content-Type: message/delivery-status\r\n\r\n" + fields
    return b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + fields


def _final(outcome: Outcome) -> str:
    """The recipient as the server was told: an international domain goes out as its A-label, and is read by programs
    that know nothing of RFC 6533."""
    return ascii_form(outcome.address) or outcome.address


def _about(outcome: Outcome, facts: Undelivered, action: str) -> bytes:
    final = _final(outcome)
    fields = [
        field("Final-Recipient", f"{'rfc822' if final.isascii() else 'utf-8'}; {final}"),
        field("Action", action),
        field("Status", _status(outcome, action)),
    ]
    host = _mta_name(outcome.host)
    if host and outcome.phase is not Phase.CONNECT:  # it was there, whether it spoke or not (RFC 3464, 2.3.5)
        fields.append(field("Remote-MTA", f"dns; {host}"))
    if outcome.code is not None:  # what it said, and nothing else (RFC 3464, 2.3.6)
        fields.append(field("Diagnostic-Code", f"smtp; {_printable(outcome.answer)}"))
    elif outcome.answer:
        fields.append(field("Diagnostic-Code", f"x-deferd; {_printable(outcome.answer)}"))
    fields.append(field("Last-Attempt-Date", mail_date(facts.now)))
    if action == "delayed" and facts.retry_until is not None:
        fields.append(field("Will-Retry-Until", mail_date(facts.retry_until)))
    return b"".join(fields)


def _status(outcome: Outcome, action: str) -> str:
    """The status code (RFC 3463): the server's; where it gave none, as much of one as its reply's first digit tells.

    A delay is a persistent transient failure, also where the host refused us for good: we do not take its word yet.
    """
    if action == "delayed":
        return f"4{outcome.enhanced[1:]}" if outcome.enhanced else "4.0.0"
    if outcome.enhanced:
        return outcome.enhanced
    expired = outcome.code is None or outcome.code < 500
    return "4.4.7" if expired else "5.0.0"


def _returned_part(facts: Undelivered) -> bytes:
    kind, octets = _returned(facts)
    encoding = b"7bit" if octets.isascii() else b"8bit"
    return b"Content-Type: %b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (kind, encoding, octets)


def _returned(facts: Undelivered) -> tuple[bytes, bytes]:
    """The media type and the octets of what goes back: the message where it is small, else its header."""
    if len(facts.content) == facts.size <= _SMALL:
        return (b"message/global" if _is_international(facts.content) else b"message/rfc822"), facts.content
    header = header_of(facts.content)
    if len(header) > _LONGEST_HEADER or not header.endswith(b"\r\n"):
        header = header[: header.rfind(b"\r\n", 0, _LONGEST_HEADER) + 2]
    return (b"message/global-headers" if _is_international(header) else b"text/rfc822-headers"), header


def _is_international(content: bytes) -> bool:
    """Whether the header is written by RFC 6532; other 8-bit octets in it are merely old."""
    header = header_of(content)
    try:
        return not header.isascii() and bool(header.decode())
    except UnicodeDecodeError:
        return False


def _mta_name(host: str) -> str:
    """The name in "mx.example.net:25"; an address as a domain literal (RFC 3464, 2.1.2)."""
    name, colon, port = host.rpartition(":")
    name = (name if colon and port.isdigit() else host).strip("[]")
    try:
        address = ip_address(name)
    except ValueError:
        return _printable(name)
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


def _printable(text: str) -> str:
    """What a server or a message said, as one line of ASCII that is not too long."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain.encode("ascii", "backslashreplace").decode()[:_LONGEST_TEXT]


def _readable(subject: str) -> str:
    """A Subject with its encoded words decoded, as far as they can be, on one line."""
    with suppress(HeaderParseError, LookupError, ValueError):  # it is shown as it stands, then
        subject = str(make_header(decode_header(subject)))
    return "".join(character if character.isprintable() else " " for character in subject)[:_LONGEST_SUBJECT]
