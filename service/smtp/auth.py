"""Proving who we are: SASL mechanisms for AUTH (RFC 4954)."""

from __future__ import annotations

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """A user name and a password. The password is not in the repr."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=...)"
