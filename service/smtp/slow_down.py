"""Which answers speak of us and not of the message: that we come too often, or with too many connections at once.

RFC 5321 has no reply code for it, and servers use 421, 432, 450, 451, 452, 454 and others. Of the enhanced codes two
mean it; 4.7.0, 4.7.1, 4.3.2 and 4.2.1 stand for this and much else, so there the words decide, and only words by which
real servers say it: where one is not known a message is put off like any other, and that does no harm.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["asks_to_slow_down"]

_SAYS_SO: Final = frozenset(("4.4.5", "4.7.28"))
"""Mail system congestion (RFC 3463, 3.5); mail flood detected (IANA's registry)."""

_OF_THE_MESSAGE: Final = frozenset(("4.2.2", "4.5.3"))
"""Mailbox full (RFC 3463, 3.3), too many recipients (3.6): whatever limits the words tell of, they are others."""

_KIND = r"(?:(?:concurrent|simultaneous|parallel|open|active|new|incoming|inbound|client|smtp|tls|similar)\s){0,3}"
_GREYLISTED = re.compile(r"\bgr[ae]y-?list", re.IGNORECASE)
_WORDS = re.compile(
    rf"""
      \btoo\s(?:many|much)\s{_KIND}(?:connections?|sessions?|messages?|e?-?mails?|load|auth\scommands)\b
    | \btoo\smany\srecipients\sfrom\b
    | \b(?:messages|recipients|e?-?mails?|connections)(?:\s\w+)?\s(?:per|this|each|every)\s(?:second|minute|hour|day)\b
    | \brate[ -]?limit
    | \b(?:at\sa|unusual|high|excessive|maximum|sending|submission|delivery|messages?|e?-?mail|connection|recipient
        |sender)\srate\b
    | \bthrottl
    | \b(?:slow\sdown|slower|too\s(?:fast|quickly|rapidly|frequently))\b
    | \b(?:connections?|sessions?|threads?)\s(?:rate\s|count\s)?(?:limits?|quota|exceeded)\b
    | \b(?:maximum|max|limit|number)\s(?:allowed\s)?(?:number\s)?(?:of\s|on\s)?{_KIND}(?:connections|sessions)\b
    | \bno\smore\s{_KIND}(?:connections|sessions)\b
    | \b(?:daily|hourly|sending|submission|relay)\s(?:\w+\s)?(?:limits?|quota)\b
    | \b(?:unexpected|unusual|excessive|high)\s(?:\w+\s)?(?:volume|traffic)\b
    | \b(?:server|system|service|host)\s(?:(?:ports|is|are|currently|temporarily|too)\s){{0,4}}busy\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_QUOTED_LOCAL_PART = re.compile(r'"[^"]*"@')
_NAMES_SOMEBODY = re.compile(r"@|[^\W_]\.[^\W_]")


def asks_to_slow_down(code: int | None, enhanced: str, text: str) -> bool:
    """Whether this answer, as `Reply` has it, is a 4xx that asks us for fewer connections or messages.

    Then the site is to be slowed, and the message is not to blame: no attempt of it is used up. A server may say so
    for ever, or lie, so the caller sees to it that

    * the message's time goes on, and it fails at the end of it, as behind a host that is down;
    * it is not offered again at once, nor by itself more often than the site's rest, which grows, would allow;
    * only the site that said it is slowed, never to a standstill, and what it serves makes it faster again;
    * of several recipients, those that were answered otherwise keep their answers.

    A 421 is the host's fault whatever it says. What it says of one busy mailbox ("receiving mail at a rate") slows the
    site too, as at a relay it cannot be told from what is said of us; so slowing should be cheap, and resting is for
    host failures. Addresses and domains in the text are not looked at: who chooses one must not be able to slow a site.
    """
    if code is None or code // 100 != 4 or enhanced in _OF_THE_MESSAGE:
        return False
    if enhanced in _SAYS_SO:
        return True
    said = " ".join(word for word in _QUOTED_LOCAL_PART.sub("@", text).split() if not _NAMES_SOMEBODY.search(word))
    return _WORDS.search(said) is not None and _GREYLISTED.search(said) is None
