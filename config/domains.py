"""Names of domains and hosts: patterns of routes, relays, our own name, and where to listen.

Each function returns the checked form, or raises `ValueError` with what to write instead. Domains are A-labels
(RFC 5890) in lower case, so that comparing them is comparing strings.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, cast

import idna

from config.settings import Relay, Scheme

PORTS: Final[dict[str, int]] = {"smtp": 25, "smtps": 465, "lmtp": 24}
RELAY: Final = "a relay; write smtp://host:port (or smtps://, lmtp://), IPv6 addresses in brackets"
LISTEN: Final = "address:port; write 127.0.0.1:8025 or [::1]:8025, or null for none"
"""What a relay and a place to listen are, and how they are written."""

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_RELAY: Final = re.compile(r"([A-Za-z]+)://(\[[^\]]*\]|[^:/?#\[\]]*)(?::([0-9]{1,6}))?/?")
_LISTEN: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]+):([0-9]{1,6})")


def domain(text: str) -> str:
    """A domain name as a lower-case A-label, without a dot at the end."""
    name = text.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise ValueError("is no domain name") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError("is no domain name; it has letters, digits and hyphens between dots, like mail.example.org")
    return name


def pattern(text: str) -> str:
    """`example.com`, `*.example.com` (what is below it, not itself), `*`, or an address literal like `[192.0.2.1]`."""
    if text == "*":
        return text
    if text.startswith("[") and text.endswith("]"):
        return text.lower()
    if "@" in text:
        raise ValueError("is an address, and a route goes by the domain; write what follows the @")
    star, rest = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    if "*" in rest:
        raise ValueError("is no pattern; write example.com, *.example.com or *")
    return star + domain(rest)


def host(text: str) -> str:
    """A name or an IP address (IPv6 in brackets, returned without)."""
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError("has no IPv6 address in its brackets; write smtp://[2001:db8::25]:25") from None
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError("has neither an IPv4 address nor a name for its host") from None
    return domain(text)


def port(text: str, lowest: int = 1) -> int:
    """A TCP port."""
    if not lowest <= int(text) <= 65535:
        raise ValueError(f"has no possible port; ports go from {lowest} to 65535")
    return int(text)


def relay(text: str) -> Relay:
    """A relay out of its URL; the port is 25, 465 or 24 by its scheme where none is given."""
    if "@" in text:
        raise ValueError("has a user in it; write smtp://host:port and give username and password_file")
    match = _RELAY.fullmatch(text)
    if match is None:
        raise ValueError(f"is not {RELAY}")
    scheme = match[1].lower()
    if scheme not in PORTS:
        raise ValueError(f"has the scheme {scheme}; use smtp, smtps or lmtp")
    if not match[2]:
        raise ValueError("has no host; write smtp://host:port")
    number = PORTS[scheme] if match[3] is None else port(match[3])
    return Relay(cast(Scheme, scheme), host(match[2]), number)


def own_name(text: str) -> str:
    """What we call ourselves in EHLO: a domain name or an address literal (RFC 5321, 4.1.3)."""
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
        try:
            if inner.lower().startswith("ipv6:"):
                return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
            return f"[{ipaddress.IPv4Address(inner)}]"
        except ValueError:
            raise ValueError("is no address literal; write [192.0.2.1] or [IPv6:2001:db8::1]") from None
    return domain(text)


def listen(text: str) -> str:
    """`address:port` to listen on; `localhost` is 127.0.0.1, port 0 is any free one."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        raise ValueError(f"is not {LISTEN}")
    name = "127.0.0.1" if match[1] == "localhost" else match[1]
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        raise ValueError("has no numeric address; write 127.0.0.1:8025, or 0.0.0.0:8025 for all interfaces") from None
    if (address.version == 6) != name.startswith("["):
        raise ValueError("has an IPv6 address without brackets, or an IPv4 address in them; write [::1]:8025")
    return f"{name}:{port(match[2], lowest=0)}"
