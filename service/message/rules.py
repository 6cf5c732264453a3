"""What reading a job needs to be told: limits and names from the configuration, the time, and a source of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

import msgspec

from service.message.address import same_mailbox
from service.message.job import JobError

__all__ = ["Circumstances", "ReadingRules", "distinct"]


class ReadingRules(msgspec.Struct, frozen=True):
    """The part of the configuration that reading a job depends on.

    `hostname` is for the Message-IDs that are added; `message_size` is in octets and bounds a file as well as a
    composed message; `recipients` bounds the recipients of one job. An address in a message's header that has no domain
    gets `domain`; where that is "", it is refused.
    """

    hostname: str
    message_size: int = 50 * 1024 * 1024
    recipients: int = 1000
    domain: str = ""


class Circumstances(msgspec.Struct, frozen=True):
    """What one reading is handed besides the file, so that the same file in the same circumstances is the same job.

    `now` is in seconds since the epoch. `unique` returns a new name at each call (letters, digits, dots, hyphens);
    it becomes the left side of a Message-ID. `open_attachment` takes a path as the job names it and returns the
    file's octets, or raises `JobError` where the file may not be read.
    """

    rules: ReadingRules
    now: float
    unique: Callable[[], str]
    open_attachment: Callable[[str], bytes]

    def date(self) -> str:
        """The Date field's value for now (RFC 5322, 3.3), in UTC."""
        return mail_date(self.now)

    def message_id(self) -> str:
        """A new Message-ID field's value (RFC 5322, 3.6.4)."""
        return f"<{self.unique()}@{self.rules.hostname}>"


def mail_date(seconds: float) -> str:
    """Seconds since the epoch as RFC 5322, 3.3 writes them, in UTC."""
    return _whole_second(int(seconds))


@lru_cache(maxsize=16)
def _whole_second(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def distinct(addresses: Iterable[str], rules: ReadingRules) -> tuple[str, ...]:
    """The checked addresses in order, no mailbox twice. Raises `JobError` where there is none or there are too many."""
    seen: dict[str, str] = {}
    for address in addresses:
        key = same_mailbox(address)
        if key not in seen:
            if len(seen) == rules.recipients:
                raise JobError(
                    f"the job has more than {rules.recipients} recipients ({address} is one too many): "
                    "split it, or raise limits.recipients"
                )
            seen[key] = address
    if not seen:
        raise JobError("the job has no recipient")
    return tuple(seen.values())
