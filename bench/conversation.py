"""One connection's SMTP as the sink in Python speaks it, without I/O."""

from __future__ import annotations

from typing import Protocol

LONGEST_COMMAND = 2048
KEPT_HEAD = 1024
END = b"\r\n.\r\n"


class Server(Protocol):
    """Whom the conversation belongs to."""

    @property
    def offers_tls(self) -> bool:
        """Whether STARTTLS is understood."""

    def hello(self, secure: bool) -> bytes:
        """The answer to EHLO."""

    def took(self, size: int, recipients: int, head: bytes) -> bool:
        """A message has come; False if that is not to be answered."""

    def refused(self) -> None:
        """A command made no sense."""


class Conversation:
    """One connection's SMTP, without I/O: octets in, replies out (RFC 5321, 2920, 3030)."""

    def __init__(self, server: Server) -> None:
        self.leaving = False
        self.start_tls = False
        self._server = server
        self._rest = b""  # of a command, or the last octets of content, where the mark may have been cut in two
        self._secure = False
        self._in_data = False
        self._in_chunk = False
        self._left = 0
        self._last = False
        self._wanted = True
        self._reset()

    def secured(self) -> None:
        """TLS has begun: what was said before is forgotten (RFC 3207, 4.2)."""
        self.start_tls, self._secure, self._rest = False, True, b""
        self._reset()

    def _reset(self) -> None:
        self._mail = False
        self._recipients = 0
        self._size = 0
        self._head = b""

    def feed(self, data: bytes) -> bytes:
        """The replies to what has come; `leaving` and `start_tls` tell what is to be done once they are written."""
        replies: list[bytes] = []
        data = self._rest + data
        self._rest = b""
        at = 0
        while (at < len(data) or (self._in_chunk and not self._left)) and not self.leaving and not self.start_tls:
            if self._in_chunk:
                at = self._take_chunk(data, at, replies)
                continue
            end = data.find(END if self._in_data else b"\n", at)
            if end < 0:
                self._keep(data, at)
                break
            if self._in_data:
                at = self._take_data(data, at, end, replies)
            else:
                replies.append(self._obey(data[at : end + 1]))
                at = end + (-1 if self._in_data else 1)  # the mark may begin with the end of DATA's own line
        return b"".join(replies)

    def _keep(self, data: bytes, at: int) -> None:
        if self._in_data:
            kept = max(at, len(data) - len(END) + 1)
            self._add(data, at, kept)
            self._rest = data[kept:]
        else:
            self._rest = data[at : at + LONGEST_COMMAND]

    def _add(self, data: bytes, at: int, end: int) -> None:
        self._size += end - at
        if len(self._head) < KEPT_HEAD:
            self._head += data[at : min(end, at + KEPT_HEAD)]

    def _take_data(self, data: bytes, at: int, end: int, replies: list[bytes]) -> int:
        self._add(data, at, end + 2)
        self._in_data = False
        self._size -= 2  # the end of DATA's own line
        replies.append(self._taken())
        return end + len(END)

    def _take_chunk(self, data: bytes, at: int, replies: list[bytes]) -> int:
        end = min(len(data), at + self._left)
        self._left -= end - at
        if self._wanted:
            self._add(data, at, end)
        if not self._left:
            self._in_chunk = False
            if not self._wanted:
                replies.append(self._refuse(b"503 5.5.1 MAIL and RCPT first\r\n"))
            else:
                replies.append(self._taken() if self._last else b"250 2.0.0 chunk taken\r\n")
        return end

    def _taken(self) -> bytes:
        answered = self._server.took(self._size, self._recipients, self._head)
        self._reset()
        return b"250 2.0.0 taken\r\n" if answered else b""

    def _refuse(self, reply: bytes) -> bytes:
        self._server.refused()
        return reply

    def _obey(self, line: bytes) -> bytes:
        verb, *arguments = line.split()[:3] or [b""]
        verb = verb.upper()
        if verb == b"MAIL" and not self._mail:
            self._mail = True
            return b"250 2.1.0 ok\r\n"
        if verb == b"RCPT" and self._mail:
            self._recipients += 1
            return b"250 2.1.5 ok\r\n"
        if verb == b"DATA" and self._recipients and not self._size:
            self._in_data = True
            return b"354 go ahead\r\n"
        if verb in (b"MAIL", b"RCPT", b"DATA"):
            return self._refuse(b"503 5.5.1 not now\r\n")
        if verb == b"BDAT":
            return self._begin_chunk(arguments)
        return self._obey_other(verb)

    def _obey_other(self, verb: bytes) -> bytes:
        if verb in (b"EHLO", b"HELO", b"RSET"):
            self._reset()
            return self._server.hello(self._secure) if verb == b"EHLO" else b"250 2.0.0 ok\r\n"
        if verb == b"NOOP":
            return b"250 2.0.0 ok\r\n"
        if verb == b"QUIT":
            self.leaving = True
            return b"221 2.0.0 bye\r\n"
        if verb == b"STARTTLS" and self._server.offers_tls and not self._secure:
            self.start_tls = True
            return b"220 2.0.0 go ahead\r\n"
        return self._refuse(b"500 5.5.2 unknown\r\n")

    def _begin_chunk(self, arguments: list[bytes]) -> bytes:
        last = [word.upper() for word in arguments[1:]]
        if not arguments or not arguments[0].isdigit() or last not in ([], [b"LAST"]):
            self.leaving = True  # what follows cannot be told from commands
            return self._refuse(b"501 5.5.4 BDAT size [LAST]\r\n")
        self._left, self._last, self._in_chunk = int(arguments[0]), bool(last), True
        self._wanted = self._recipients > 0
        return b""
