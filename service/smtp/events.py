"""What a session tells its driver. The order is, for each envelope,

    [StartTLS] Ready [[BodyWanted] Finished]* [Failed]

and `Failed`, or a `Finished` whose `close` is set, is always the last one: what is said after it is not heard.
"""

from __future__ import annotations

import msgspec

from service.message.outcome import Outcome
from service.smtp.errors import DeliveryError


class Ready(msgspec.Struct, frozen=True):
    """The handshake is done: the session takes envelopes. Comes once."""


class StartTLS(msgspec.Struct, frozen=True):
    """The server waits for the TLS handshake: do it now, then call `tls_established` or `tls_failed`."""


class BodyWanted(msgspec.Struct, frozen=True):
    """Give the content of the newest envelope by `send_body`: the server said 354, or it goes in chunks (RFC 3030).

    In chunks it may be refused before it is complete, and `Finished` comes only after that is heard to its end: see
    `Session.wants_body` before each piece.
    """


class Finished(msgspec.Struct, frozen=True):
    """The oldest open envelope is done: each of its recipients has an outcome, in the envelope's order.

    The session takes the next envelope, unless `close` is set: then the answers stand, but the conversation is out of
    step (an answer in the middle of the content, a refused RSET) and the connection must be closed. A driver that is
    still giving the content must stop when this comes.
    """

    outcomes: tuple[Outcome, ...]
    close: bool = False


class Failed(msgspec.Struct, frozen=True):
    """The conversation is over; close the connection.

    `error` is the fate of the oldest open envelope (or of the handshake, or of the idle connection); its `outcomes` has
    the recipients whose fate was sealed before, which may be all of them. `ahead` has one error for each envelope that
    was sent ahead behind that one: its scope may differ (after DATA only the first may be in doubt; with chunks, each
    whose last one has gone).
    """

    error: DeliveryError
    ahead: tuple[DeliveryError, ...] = ()


Event = Ready | StartTLS | BodyWanted | Finished | Failed
