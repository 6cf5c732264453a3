"""Why an attempt brought no confirmation: who failed us decides what an errback does.

What a server says of a message or of a recipient, a refusal too, is no error but an `Outcome`: the session goes on.
"""

from __future__ import annotations

from service.message.outcome import Outcome, Phase


class DeliveryError(Exception):
    """Why an attempt brought no confirmation.

    `phase` names the step of the chain; `code`, `enhanced` and `text` are the server's answer (None and "" where there
    was none, `text` then says what happened); `host` is the server, filled in by whoever knows it. `outcomes` has the
    recipients whose fate was sealed before the failure (a 550 to RCPT stands even if the connection dies after it).
    """

    def __init__(
        self,
        phase: Phase,
        text: str,
        *,
        code: int | None = None,
        enhanced: str = "",
        host: str = "",
        outcomes: tuple[Outcome, ...] = (),
    ) -> None:
        super().__init__(phase, code, text)
        self.phase = phase
        self.code = code
        self.enhanced = enhanced
        self.text = text
        self.host = host
        self.outcomes = outcomes

    def __str__(self) -> str:
        answer = " ".join(part for part in (str(self.code or ""), self.enhanced, self.text) if part)
        return f"{self.phase}: {answer}"


class HostFailure(DeliveryError):
    """This host did not serve us: try the next, rest the site; the message is not to blame."""


class BrokenAnswer(HostFailure):
    """The server does not speak SMTP, or not in step: nothing it says from here on can be believed."""


class ChunkingRefused(BrokenAnswer):
    """The server offers CHUNKING and knows no BDAT: nothing was delivered; connect anew, with `chunking` off.

    It has read the content as commands, perhaps, so there is no falling back to DATA on this connection.
    """


class ConfirmationLost(HostFailure):
    """The server vanished after our final dot or last chunk: it may have the message, a retry may duplicate it."""


class BrokenConfirmation(BrokenAnswer, ConfirmationLost):
    """What came instead of the answer to our final dot or last chunk was no answer: it may have the message."""
