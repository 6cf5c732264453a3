"""What was said, what is about to be said, and the replies owed for it, in order.

An expectation is owed once its command has been handed out for sending. So a reply that comes while none is owed is one
that nobody asked for, even if the command that it would fit is about to go.

RFC 2920, 3.1 warns of a deadlock when a client writes a large group and reads nothing meanwhile. Here reading never
waits for writing (the driver does both as the socket allows), so a group may be of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.smtp.stages import PHASES, Expectation, Stage

if TYPE_CHECKING:
    from service.message.outcome import Phase
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
        self._held: list[tuple[bytes, tuple[Expectation, ...]]] = []

    def expect_greeting(self) -> None:
        """Wait for what needs no command."""
        self._owed.append(Expectation(Stage.GREETING))

    def ask(self, line: bytes, *expectations: Expectation) -> None:
        """Queue a command with what will answer it; content in the middle has no expectation."""
        self._held.append((line, expectations))

    def fetch(self) -> bytes:
        """Return all that may go now; its replies are owed from here on."""
        pieces: list[bytes] = []
        for piece, expectations in self._held:
            if not self._may_go(expectations):
                break
            pieces.append(piece)
            self._owed += expectations
        del self._held[: len(pieces)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _may_go(self, expectations: tuple[Expectation, ...]) -> bool:
        # Content is only queued when the server waits for it, and nothing is queued behind EHLO, STARTTLS, AUTH or DATA
        # until they are answered: they must be the last of a group (RFC 2920, 3.1).
        return self.pipelining or not expectations or not self._owed

    def oldest(self) -> Expectation | None:
        """What the next reply answers; None if none is owed."""
        return self._owed[0] if self._owed else None

    def answered(self) -> None:
        """Drop the oldest expectation: its reply has come."""
        del self._owed[0]

    @property
    def busy(self) -> bool:
        """Whether a reply is owed, or will be once what is queued has gone."""
        return bool(self._owed) or any(expectations for _, expectations in self._held)

    def take_back(self) -> None:
        """Forget what has not gone yet."""
        self._held.clear()

    def now(self) -> Expectation | None:
        """What is being waited for: the oldest owed, else the first that is about to be."""
        if self._owed:
            return self._owed[0]
        return next((expectations[0] for _, expectations in self._held if expectations), None)

    def in_doubt(self, transaction: Transaction) -> bool:
        """Whether the transaction's final dot has gone and is not answered."""
        return any(owed.stage is Stage.CONFIRM and owed.transaction is transaction for owed in self._owed)

    def phase_of(self, transaction: Transaction) -> Phase | None:
        """What the transaction is waiting for; None if for nothing."""
        expectations = [*self._owed, *(each for _, held in self._held for each in held)]
        return next((PHASES[each.stage] for each in expectations if each.transaction is transaction), None)
