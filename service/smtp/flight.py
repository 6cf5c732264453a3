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

    __slots__ = ("_held", "_owed", "pipelining")

    def __init__(self) -> None:
        self.pipelining = False
        # lists, not deques: an empty deque has 600 octets, and most connections are many and short of work
        self._owed: list[Expectation] = []
        self._held: list[tuple[bytes, Expectation | None]] = []

    def expect_greeting(self) -> None:
        """Wait for what needs no command."""
        self._owed.append(Expectation(Stage.GREETING))

    def ask(self, line: bytes, expectation: Expectation | None = None) -> None:
        """Queue a command with what will answer it; content after DATA has no expectation, and neither has QUIT."""
        self._held.append((line, expectation))

    def fetch(self) -> bytes:
        """Return all that may go now; its replies are owed from here on."""
        if not self._held:
            return b""
        pieces: list[bytes] = []
        for piece, expectation in self._held:
            # Content is only queued when the server waits for it, and nothing is queued behind EHLO, STARTTLS, AUTH or
            # DATA until they are answered: they must be the last of a group (RFC 2920, 3.1).
            if expectation is not None:
                if self._owed and not self.pipelining:
                    break
                self._owed.append(expectation)
            pieces.append(piece)
        del self._held[: len(pieces)]
        return b"".join(pieces)  # a single piece is not copied

    def oldest(self) -> Expectation | None:
        """What the next reply answers; None if none is owed."""
        return self._owed[0] if self._owed else None

    def answered(self) -> None:
        """Drop the oldest expectation: its reply has come."""
        del self._owed[0]

    def owe_another(self, expectation: Expectation) -> None:
        """The oldest expectation, just answered, has one more reply to come."""
        self._owed.insert(0, expectation)

    def forsake(self, beyond: int = 0) -> None:
        """Expect no reply but the first `beyond`: the server does nothing more of what it was asked."""
        del self._owed[beyond:]

    @property
    def busy(self) -> bool:
        """Whether a reply is owed, or will be once what is queued has gone."""
        return bool(self._owed) or any(expectation is not None for _, expectation in self._held)

    def take_back(self, transaction: Transaction | None = None) -> None:
        """Forget what has not gone yet: all of it, or what `transaction` asked."""
        if transaction is None:
            self._held.clear()
        else:
            self._held = [each for each in self._held if each[1] is None or each[1].transaction is not transaction]

    def now(self) -> Expectation | None:
        """What is being waited for: the oldest owed, else the first that is about to be."""
        if self._owed:
            return self._owed[0]
        return next((expectation for _, expectation in self._held if expectation is not None), None)

    def owes(self, transaction: Transaction) -> bool:
        """Whether something of the transaction has gone and is not answered."""
        return any(owed.transaction is transaction for owed in self._owed)

    def in_doubt(self, transaction: Transaction) -> bool:
        """Whether the transaction's final dot or last chunk has gone and is not answered."""
        return any(owed.stage in FINAL and owed.transaction is transaction for owed in self._owed)
