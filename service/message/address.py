"""Addresses: what may be one (RFC 5321, 4.1.2; RFC 6531 for UTF-8), and its domain as the DNS knows it (IDNA).

What `check_address` returns holds no control character, no space outside a quoted local part and no angle bracket
outside one either, so it can stand in a command or a header field as it is. Every refusal names the offender.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna

from service.message.job import JobError, shown

__all__ = ["ascii_form", "check_address", "check_sender", "domain_of", "first_control", "same_mailbox"]

LONGEST_LOCAL = 64  # octets: RFC 5321, 4.5.3.1.1
LONGEST_DOMAIN = 255  # octets: RFC 5321, 4.5.3.1.2
LONGEST_ADDRESS = 254  # octets: a path is at most 256 with its angle brackets (RFC 5321, 4.5.3.1.3)

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN = re.compile(rf"({_ATEXT}+(?:\.{_ATEXT}+)*)@{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_UTEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]"
_DOT_STRING = re.compile(rf"{_UTEXT}+(?:\.{_UTEXT}+)*")
_QUOTED_STRING = re.compile(r'"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*"')
_JOINERS = "\u200c\u200d"  # not printable by themselves, yet part of words in Persian and in Indic scripts


def check_address(text: str) -> str:
    """`text` itself, where it is a mailbox by RFC 5321, 4.1.2, or by RFC 6531 where it is not ASCII.

    Raises `JobError`, which names the address and what is wrong with it.
    """
    if len(text) <= LONGEST_ADDRESS and not text[-1:].isdigit():
        plain = _PLAIN.fullmatch(text)
        if plain and plain.end(1) <= LONGEST_LOCAL:
            return text
    _check_thoroughly(text)
    return text


def check_sender(text: str) -> str:
    """As `check_address`, but "" and "<>" are the null sender, which is returned as ""."""
    return "" if text in ("", "<>") else check_address(text)


def domain_of(address: str) -> str:
    """The domain of a checked address as A-labels in lower case; an address literal keeps its brackets."""
    domain = address[address.rfind("@") + 1 :]
    return domain.lower() if domain.isascii() else _a_labels(domain)


def ascii_form(address: str) -> str | None:
    """A checked address with its domain as A-labels; None where the local part is not ASCII (RFC 6531 is needed)."""
    if address.isascii():
        return address
    local, _, domain = address.rpartition("@")
    return f"{local}@{_a_labels(domain)}" if local.isascii() else None


def same_mailbox(address: str) -> str:
    """A text that two checked addresses share when they name one mailbox: the domain's case does not matter."""
    local = address[: address.rfind("@") + 1]
    return local + domain_of(address)


def first_control(text: str, allowed: str = "") -> str | None:
    """The first character of `text` that is a control character or a lone surrogate and not `allowed`."""
    if text.isprintable():
        return None
    for character in text:
        code = ord(character)
        if (code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000) and character not in allowed:
            return character
    return None


def _check_thoroughly(text: str) -> None:
    """Raise `JobError` with the reason, where `text` is no mailbox."""
    _refuse_unprintable(text)
    local, at, domain = text.rpartition("@")
    if not at or not domain:
        raise JobError(f"the address {shown(text)} has no domain: write it as name@domain")
    if len(local.encode()) > LONGEST_LOCAL:
        raise JobError(f"the address {shown(text)} has more than {LONGEST_LOCAL} octets before the @")
    if len(text.encode()) > LONGEST_ADDRESS:
        raise JobError(f"the address {shown(text)} has more than {LONGEST_ADDRESS} octets")
    if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)):
        raise JobError(
            f"the address {shown(text)} is not well formed before the @: no spaces, commas, angle brackets or dots "
            'at its ends, unless all of it stands in quotes ("like this"@domain)'
        )
    _check_domain(text, domain)


def _refuse_unprintable(text: str) -> None:
    """Raise `JobError` where an address holds what no address may hold, and what could deceive who reads it."""
    if text.isascii() and text.isprintable():
        return
    for character in text:
        if character == "\ufffd" or not (character.isprintable() or character in _JOINERS):
            raise JobError(f"the address {shown(text)} holds U+{ord(character):04X}, which no address may hold")


def _check_domain(text: str, domain: str) -> None:
    if domain.startswith("["):
        if not _is_literal(domain):
            raise JobError(f"the address {shown(text)} has a bad literal: write [192.0.2.1] or [IPv6:2001:db8::1]")
        return
    try:
        name = domain if domain.isascii() else _a_labels(domain)
    except ValueError as error:
        raise JobError(f"the domain of the address {shown(text)} is no domain name: {error}") from None
    if not _NAME.fullmatch(name) or len(name) > LONGEST_DOMAIN:
        raise JobError(f"the domain of the address {shown(text)} is no domain name (letters, digits, hyphens, dots)")
    if name[name.rfind(".") + 1 :].isdigit():
        raise JobError(f"the domain of the address {shown(text)} is a number: an IP address is written in brackets")
    if len(text[: -len(domain)].encode()) + len(name) > LONGEST_ADDRESS:
        raise JobError(f"the address {shown(text)} has more than {LONGEST_ADDRESS} octets with its domain as A-labels")


def _is_literal(domain: str) -> bool:
    """Whether this is an address literal (RFC 5321, 4.1.3). No tag but IPv6 was ever registered."""
    inside = domain[1:-1]
    if not domain.endswith("]") or not domain.isascii() or "%" in domain:
        return False
    try:
        if inside[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inside[5:])
        else:
            ipaddress.IPv4Address(inside)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _a_labels(domain: str) -> str:
    """An international domain as A-labels in lower case, mapped by UTS #46. Raises ValueError (idna.IDNAError)."""
    return idna.encode(domain, uts46=True).decode("ascii").lower()
