"""Proving who we are: SASL mechanisms for AUTH (RFC 4954).

A mechanism is asked for its initial response and then for an answer to each challenge; None means that it has none.
Whether a password may be sent at all on this connection is not decided here but by the handshake.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from typing import Final, Protocol

import msgspec

from service.smtp import command


class Credentials(msgspec.Struct, frozen=True):
    """A user name and a password. The password is not in the repr."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=...)"


class CredentialsError(ValueError):
    """The user name or password cannot be sent; the message says why, without either."""


class Mechanism(Protocol):
    """One way of authentication, for one exchange."""

    name: str

    def __init__(self, credentials: Credentials) -> None: ...

    def initial(self) -> bytes | None:
        """The initial response; None if the server speaks first."""

    def answer(self, challenge: bytes) -> bytes | None:
        """The answer to a challenge (as it came, in base64); None if this challenge is not expected."""


class Plain:
    """PLAIN (RFC 4616): both in one message."""

    name = "PLAIN"

    def __init__(self, credentials: Credentials) -> None:
        self._message = b"\0".join((b"", _octets(credentials.username), _octets(credentials.password)))

    def initial(self) -> bytes | None:
        """The whole message."""
        return self._message

    def answer(self, challenge: bytes) -> bytes | None:
        """Nothing: after the initial response there is nothing left to be asked."""
        del challenge
        return None


class Login:
    """LOGIN: the user name, then the password, each when asked (never standardised, widely offered).

    What the questions say is not looked at: servers put it in many ways.
    """

    name = "LOGIN"

    def __init__(self, credentials: Credentials) -> None:
        self._answers = [_octets(credentials.password), _octets(credentials.username)]

    def initial(self) -> bytes | None:
        """None: not every server takes the user name with the command."""
        return None

    def answer(self, challenge: bytes) -> bytes | None:
        """The user name first, then the password, then None."""
        del challenge
        return self._answers.pop() if self._answers else None


MECHANISMS: Final[tuple[type[Mechanism], ...]] = (Plain, Login)
"""The known ones, best first."""


def choose(offered: Collection[str], credentials: Credentials) -> Mechanism | None:
    """Return the best known mechanism of those offered (upper case), None if there is none.

    Raise `CredentialsError` if the credentials cannot be sent.
    """
    for mechanism in MECHANISMS:
        if mechanism.name in offered:
            return mechanism(credentials)
    return None


class Exchange:
    """One AUTH command and what follows it, as lines for the server."""

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism
        self._initial = mechanism.initial()

    @property
    def name(self) -> str:
        """The mechanism's name."""
        return self._mechanism.name

    def command(self) -> bytes:
        """The AUTH command. An initial response that makes it too long waits for the challenge (RFC 4954, 4)."""
        if self._initial is None:
            return command.auth(self.name)
        line = command.auth(self.name, encode(self._initial) or "=")
        if len(line) > command.COMMAND_LIMIT:
            return command.auth(self.name)
        self._initial = None
        return line

    def answer(self, challenge: bytes) -> bytes | None:
        """The line that answers a challenge; None if the mechanism does not expect it."""
        response, self._initial = self._initial, None
        if response is None:
            response = self._mechanism.answer(challenge)
        return None if response is None else encode(response).encode("ascii") + b"\r\n"


def encode(response: bytes) -> str:
    """Return a response in base64; an empty one is "" (and "=" as an initial response: RFC 4954, 4)."""
    return b64encode(response).decode("ascii")


def _octets(secret: str) -> bytes:
    if "\0" in secret:
        raise CredentialsError("the user name or password has a NUL, which no mechanism can send")
    try:
        # surrogateescape: what came in from the environment goes out as the octets that it was
        return secret.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise CredentialsError("the user name or password is not text") from None
