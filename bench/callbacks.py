"""deferd's own conversation on deferd's own reactor, a callback for each message, without queue, disk and log."""

from __future__ import annotations

from bench.mail import SENDER
from bench.task import Task
from bench.wrong import Wrong
from config.system import collect_seldom
from deferred.defer import Deferred, gather_results
from deferred.examples.send_email import send_email
from deferred.protocol import BaseProtocol, Transport
from deferred.reactor import Reactor
from service.smtp.envelope import Envelope
from service.smtp.events import BodyWanted, Event, Failed, Finished, Ready
from service.smtp.options import SessionOptions
from service.smtp.session import Session


class Conversation(BaseProtocol):
    """The real session on a connection: it sends its share of the task, and fires `done` at the end."""

    def __init__(self, task: Task, number: int) -> None:
        self.done: Deferred[None] = Deferred()
        self._task = task
        self._letters = iter(task.share(number))
        self._number = 0
        self._session = Session(SessionOptions(hostname="bench.example", tls="none"))
        self._transport: Transport

    def connection_made(self, transport: Transport) -> None:
        """The server is there; it speaks first."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what the server says."""
        self._take(self._session.receive_data(data))

    def connection_lost(self, error: Exception | None) -> None:
        """The end, be it good or bad."""
        if self._session.closed and error is None:
            self.done.callback(None)
        else:
            self.done.errback(Wrong(f"the connection was lost: {error}"))

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Ready | Finished):
                self._next()
            elif isinstance(event, BodyWanted):
                self._session.send_body(self._task.content(self._number), True)
            elif isinstance(event, Failed):
                self._transport.abort()
        if octets := self._session.data_to_send():
            self._transport.write(octets)
        if self._session.closed:
            self._transport.close()

    def _next(self) -> None:
        number = next(self._letters, None)
        if number is None:
            self._session.quit()
            return
        self._number = number
        recipient = self._task.mail.recipient(number)
        self._take(self._session.send(Envelope(SENDER, (recipient,), self._task.mail.size)))


def with_sessions(task: Task) -> None:
    """The protocol that deferd speaks, over connections that are all open at once."""

    def converse(reactor: Reactor, number: int) -> Deferred[None]:
        address = task.addresses[number % len(task.addresses)]
        d = reactor.create_connection(lambda: Conversation(task, number), [address])
        return d.add_callback(lambda conversation: conversation.done)

    collect_seldom()  # as the daemon does
    with Reactor() as reactor:
        waiting = [converse(reactor, number) for number in range(task.connections)]
        reactor.run_until_complete(gather_results(waiting, consume_errors=True))


def with_examples(task: Task) -> None:
    """The document's example, a connection for each message."""
    with Reactor() as reactor:
        waiting = []
        for position, number in enumerate(task.mail.numbers):
            host, port = task.addresses[position % len(task.addresses)]
            recipient, content = task.mail.recipient(number), task.content(number)
            waiting.append(send_email(reactor, host, port, SENDER, recipient, content, timeout=600))
        reactor.run_until_complete(gather_results(waiting, consume_errors=True))
