"""What was said, what is about to be said, and the replies owed for it, in order.

An expectation is owed once its command has been handed out for sending. So a reply that comes while none is owed is one
that nobody asked for, even if the command that it would fit is about to go.

RFC 2920, 3.1 warns of a deadlock when a client writes a large group and reads nothing meanwhile. Here reading never
waits for writing (the driver does both as the socket allows), so a group may be of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.smtp.stages import FINAL, Expectation, Stage

if TYPE_CHECKING:
    from service.smtp.transaction import Transaction


class Flight:
    """The queue of octets to go and the queue of replies to come.

    Without `pipelining` a command stays here until every reply before it has come, so it can still be taken back.
    """

    __slots__ = ("_held", "_owed", "expected", "pipelining")

    def __init__(self) -> None:
        self.pipelining = False
        # lists, not deques: an empty deque has 600 octets, and most connections are many and short of work
        self._held: list[bytes] = []
        """What has not gone yet: content that the server waits for, and behind it commands."""
        self.expected: list[Expectation] = []
        """The replies to come: first those that are owed, then one for each command that is held, in order."""
        self._owed = 0

    def expect_greeting(self) -> None:
        """Wait for what needs no command, before there is any."""
        self.expected.append(Expectation(Stage.GREETING))
        self._owed += 1

    def ask(self, line: bytes, expectation: Expectation) -> None:
        """Queue a command with what will answer it."""
        self._held.append(line)
        self.expected.append(expectation)

    def say(self, octets: bytes) -> None:
        """Queue what has no answer of its own: content after DATA, once nothing else is held; and QUIT."""
        self._held.append(octets)

    def fetch(self) -> bytes:
        """Return all that may go now; its replies are owed from here on.

        Nothing is queued behind EHLO, STARTTLS, AUTH or DATA until they are answered: they must be the last of a group
        (RFC 2920, 3.1).
        """
        if not self._held:
            return b""
        going, self._held = self._held, []
        if not self.pipelining and len(self.expected) > 1:  # one command at a time, and content
            end = len(going) - len(self.expected) + max(1, self._owed)
            going, self._held = going[:end], going[end:]
        self._owed = len(self.expected) - len(self._held)
        return b"".join(going)  # a single piece is not copied

    def answered(self) -> Expectation | None:
        """Drop the oldest expectation, as its reply has come, and return it; None if none is owed."""
        if not self._owed:
            return None
        self._owed -= 1
        return self.expected.pop(0)

    def owe_another(self, expectation: Expectation) -> None:
        """The oldest expectation, just answered, has one more reply to come."""
        self.expected.insert(0, expectation)
        self._owed += 1

    def forsake(self, beyond: int = 0) -> None:
        """Expect no reply but the first `beyond`: the server does nothing more of what it was asked."""
        del self.expected[beyond : self._owed]
        self._owed = min(beyond, self._owed)

    def take_back(self, transaction: Transaction) -> None:
        """Forget what `transaction` asked and has not gone yet."""
        asked = self.expected[self._owed :]
        content = len(self._held) - len(asked)
        lines = self._held[content:]
        del self._held[content:], self.expected[self._owed :]
        for line, expectation in zip(lines, asked, strict=True):
            if expectation.transaction is not transaction:
                self.ask(line, expectation)

    def end(self) -> None:
        """Forget what has not gone yet, and expect nothing: the conversation is over."""
        self._held.clear()
        self.expected.clear()
        self._owed = 0

    def owes(self, transaction: Transaction) -> bool:
        """Whether something of the transaction has gone and is not answered."""
        return any(owed.transaction is transaction for owed in self.expected[: self._owed])

    def in_doubt(self, transaction: Transaction) -> bool:
        """Whether the transaction's final dot or last chunk has gone and is not answered."""
        return any(owed.stage in FINAL and owed.transaction is transaction for owed in self.expected[: self._owed])
