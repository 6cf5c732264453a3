"""A message with its envelope, as a dropped file has them: X-Sender and X-Receiver lines at the very top.

The message may come from anybody. With an envelope of our own, such lines at its top are taken off: else they would
go on ours, and add recipients. What comes out is read by the daemon's own reader before it is dropped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from secrets import token_hex
from typing import Final

from config.settings import Settings
from service.message.address import check_address, check_sender
from service.message.eml import field_of
from service.message.job import Job, JobError
from service.message.read import read_job
from service.message.rules import ReadingRules
from service.message.wire import normalise

_FIELD: Final = re.compile(rb"(x-sender|x-receiver)[ \t]*:[^\r]*(?:\r\n[ \t][^\r]*)*\r\n", re.IGNORECASE)


def letter(
    data: bytes,
    settings: Settings,
    *,
    sender: str | None = None,
    recipients: Sequence[str] = (),
    from_header: bool = False,
    domain: str = "",
) -> bytes:
    """The file to drop: `data` under an envelope.

    `sender` and `recipients` go before what the message says ("" is the null sender). With `from_header` the
    recipients come from To, Cc and Bcc, and not from lines at the top. `domain` is as in `judged`. Raises `JobError`
    where it would be no job.
    """
    if not data.strip():
        raise JobError("the message is empty")
    if len(data) > settings.limits.message_size:
        raise JobError(f"the message is over limits.message_size ({settings.limits.message_size} octets)")
    own, message = _split(normalise(data))
    if recipients or from_header:
        own = []
    elif sender is not None:
        own = [field for field in own if not field.lower().startswith(b"x-sender")]
    lines = [] if sender is None else [f"X-Sender: <{check_sender(sender)}>"]
    lines += [f"X-Receiver: <{check_address(recipient)}>" for recipient in recipients]
    file = b"".join(line.encode() + b"\r\n" for line in lines) + b"".join(own) + message
    _check(judged(file, settings, domain=domain), recipients)
    return file


def names_sender(data: bytes) -> bool:
    """Whether the message's header says who sends it."""
    content = normalise(data)
    return any(field_of(content, name) for name in ("return-path", "sender", "from"))


def caller(settings: Settings) -> str:
    """Who calls us, at our own name."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"uid-{os.getuid()}"
    return f"{user}@{settings.hostname}"


def judged(file: bytes, settings: Settings, ending: str = ".eml", *, domain: str = "") -> Job:
    """The job that the daemon will make of the file, if addresses in the header are completed with `domain` before;
    its attachments are not looked at. Raises `JobError`."""
    rules = ReadingRules(settings.hostname, settings.limits.message_size, settings.limits.recipients, domain)
    return read_job(
        f"job{ending}", file, rules=rules, now=0.0, unique=lambda: token_hex(8), open_attachment=lambda _: b""
    )


def _split(content: bytes) -> tuple[list[bytes], bytes]:
    """The fields of the block at the top, and what follows it."""
    fields: list[bytes] = []
    position = 0
    while found := _FIELD.match(content, position):
        fields.append(found[0])
        position = found.end()
    return fields, content[position:]


def _check(job: Job, recipients: Sequence[str]) -> None:
    """See that nobody was added: whatever the message's top looks like, the envelope is the one that was given."""
    if recipients and not set(job.recipients) <= set(recipients):
        raise JobError("the message begins with lines that would add recipients; put a blank line before them")
