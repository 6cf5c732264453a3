"""What an attempt brings back: answers, or why there are none, in words."""

from __future__ import annotations

import msgspec

from service.message.outcome import Outcome


class Receipt(msgspec.Struct, frozen=True):
    """An outcome for each recipient."""

    outcomes: tuple[Outcome, ...]

    def states(self) -> dict[str, str]:
        """Each recipient's state."""
        return {outcome.address: outcome.state.value for outcome in self.outcomes}


def describe(error: Exception | None) -> str:
    """Why a connection could not be made or was lost, for people."""
    if error is None:
        return "the server closed the connection"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__
