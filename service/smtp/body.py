"""Content to what travels after DATA: dot-stuffing and the final dot (RFC 5321, 4.5.2)."""

from __future__ import annotations


class DotStuffer:
    """Doubles a dot at the start of a line, whatever way the content is cut into pieces.

    It remembers how the piece before ended: a lone dot at the start of a piece must neither end the message nor be
    doubled in the middle of a line. A bare LF counts as a line's end here, since some servers take it for one and a dot
    after it would let content end the message (SMTP smuggling); content that keeps the rules has none.
    """

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def stuff(self, piece: bytes) -> bytes:
        """Return `piece` as it has to be sent; the same object if nothing has to be changed."""
        if not piece:
            return piece
        stuffed = piece.replace(b"\n.", b"\n..")
        if piece[0] == 0x2E and self._tail.endswith(b"\n"):
            stuffed = b"." + stuffed
        self._tail = piece[-2:] if len(piece) > 1 else self._tail[-1:] + piece
        return stuffed

    def end(self) -> bytes:
        """Return the final dot, with a line end before it if the content does not end in one."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"
