"""What a session tells its driver. The order is

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
    """The server said 354 to the oldest open envelope: give its content by `send_body`."""


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
    was sent ahead behind that one: its scope may differ (only the first may be in doubt).
    """

    error: DeliveryError
    ahead: tuple[DeliveryError, ...] = ()


Event = Ready | StartTLS | BodyWanted | Finished | Failed
