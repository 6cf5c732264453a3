"""What a stream does whatever carries it: each test runs over sockets and in memory."""

from __future__ import annotations

from array import array

import pytest

from tests.deferred.transports import Echo, Note


def test_octets_arrive_in_their_order(world):
    """Written in pieces, read as they come."""
    client, server = world.connect()
    for number in range(100):
        client.transport.write(b"%03d," % number)
    client.transport.writelines([b"a", b"", b"bc"] * 50)
    data = world.wait(server.receive(400 + 150))
    assert data == b"".join(b"%03d," % number for number in range(100)) + b"abc" * 50


def test_more_than_the_wire_takes_is_kept_and_sent_later(world):
    """Ten megabytes, there and back, with the octets unchanged."""
    client, _ = world.connect(server=Echo)
    message = bytes(range(256)) * 40_000
    client.transport.write(message)
    assert client.transport.get_write_buffer_size() > 0
    assert world.wait(client.receive(len(message))) == message
    assert client.transport.get_write_buffer_size() == 0
    assert client.calls[:3] == ["made", "pause", "data"]
    assert "resume" in client.calls


def test_a_changed_buffer_does_not_change_what_was_written(world):
    """A bytearray belongs to its owner."""
    client, server = world.connect()
    server.transport.pause_reading()
    buffer = bytearray(b"a" * 8_000_000)
    client.transport.write(memoryview(buffer))
    client.transport.write(buffer)
    buffer[:] = b"b" * len(buffer)
    server.transport.resume_reading()
    assert world.wait(server.receive(16_000_000)) == b"a" * 16_000_000


def test_a_view_of_anything_is_sent_as_octets(world):
    """Counted in octets, not in its items."""
    client, server = world.connect()
    client.transport.write(memoryview(array("I", [0] * 1_000_000)))
    assert len(world.wait(server.receive(4_000_000))) == 4_000_000


def test_many_pieces_in_one_go_survive_a_short_write(world):
    """Each rest stays in its place."""
    client, server = world.connect()
    server.transport.pause_reading()
    pieces = [bytes([number % 256]) * 9_973 for number in range(1000)]
    client.transport.writelines(pieces)
    client.transport.writelines(pieces)
    assert "pause" in client.calls
    server.transport.resume_reading()
    assert world.wait(server.receive(2 * 9_973_000)) == b"".join(pieces) * 2


def test_the_writer_is_paused_at_its_high_water_mark_and_resumed_at_the_low(world):
    """Once each time it is crossed."""
    client, server = world.connect()
    server.transport.pause_reading()
    client.transport.set_write_buffer_limits(100, 10)
    client.transport.write(b"x" * 20_000_000)
    client.transport.write(b"x" * 1_000)
    assert client.calls == ["made", "pause"]
    server.transport.resume_reading()
    world.wait(server.receive(20_001_000))
    assert client.calls == ["made", "pause", "resume"]
    with pytest.raises(ValueError, match="between"):
        client.transport.set_write_buffer_limits(1, 2)


def test_a_paused_reader_is_left_alone(world):
    """Until it resumes."""
    client, server = world.connect()
    server.transport.pause_reading()
    client.transport.write(b"hello")
    world.turn(10)
    assert server.data == b""
    server.transport.resume_reading()
    assert world.wait(server.receive(5)) == b"hello"


def test_close_sends_what_was_written_first(world):
    """And then tells both."""
    client, server = world.connect()
    client.transport.write(b"x" * 5_000_000)
    client.transport.close()
    assert client.transport.is_closing()
    client.transport.write(b"ignored")
    client.transport.writelines([b"ignored"])
    assert world.wait(client.lost) is None
    assert world.wait(server.lost) is None
    assert len(server.data) == 5_000_000
    assert server.calls == ["made", "data", "eof", "lost"]
    assert client.calls == ["made", "pause", "lost"]


def test_connection_lost_never_comes_from_inside_close(world):
    """The caller is not surprised."""
    client, server = world.connect()
    client.transport.close()
    assert client.calls == ["made"]
    client.transport.close()
    assert world.wait(client.lost) is None
    world.wait(server.lost)
    assert client.calls.count("lost") == 1


def test_abort_drops_what_was_not_sent_and_the_peer_sees_a_reset(world):
    """Not an end that would look like all of it."""
    client, server = world.connect()
    server.transport.pause_reading()
    client.transport.write(b"x" * 20_000_000)
    client.transport.abort()
    assert world.wait(client.lost) is None
    server.transport.resume_reading()
    assert isinstance(world.wait(server.lost), ConnectionResetError)
    assert "eof" not in server.calls


def test_half_close_lets_the_other_half_go_on(world):
    """The answer may take longer than the question."""
    client, server = world.connect()
    server.keep_half_open = True
    assert client.transport.can_write_eof()
    client.transport.write(b"question" * 500_000)
    client.transport.write_eof()
    world.wait(server.receive(4_000_000))
    while server.calls[-1] != "eof":
        world.turn()
    with pytest.raises(RuntimeError):
        client.transport.write(b"more")
    with pytest.raises(RuntimeError):
        client.transport.writelines([b"more"])
    server.transport.write(b"answer")
    assert world.wait(client.receive(6)) == b"answer"
    server.transport.write_eof()
    assert world.wait(server.lost) is None
    assert world.wait(client.lost) is None
    assert server.calls == ["made", "data", "eof", "lost"]


def test_a_protocol_that_does_not_keep_its_half_open_is_closed(world):
    """After what it had written."""
    client, server = world.connect()
    server.transport.write(b"last")
    client.transport.write_eof()
    assert world.wait(server.lost) is None
    assert world.wait(client.lost) is None
    assert client.data == b"last"


class Faulty(Note):
    """Raises in one of its methods."""

    where = "data_received"

    def data_received(self, data):
        super().data_received(data)
        raise ValueError("in data_received")


def test_a_protocol_that_raises_loses_its_connection(world, errors):
    """The error is reported, and told to `connection_lost`; the rest goes on."""
    client, server = world.connect(server=Faulty)
    client.transport.write(b"x")
    assert isinstance(world.wait(server.lost), ValueError)
    world.wait(client.lost)
    assert [str(error) for error in errors] == ["in data_received"]
    errors.clear()


class FaultyStart(Note):
    """Raises at once."""

    def connection_made(self, transport):
        super().connection_made(transport)
        raise ValueError("in connection_made")


def test_a_client_that_raises_in_connection_made_fails_its_deferred(world, errors):
    """Whoever connects hears of it."""
    with pytest.raises(ValueError, match="connection_made"):
        world.connect(client=FaultyStart)
    assert errors == []


def test_a_server_that_raises_in_connection_made_is_reported(world, errors):
    """There is nobody else to tell, and the next caller is served."""
    client, server = world.connect(server=FaultyStart)
    world.wait(client.lost)
    assert server.calls == ["made", "lost"]
    assert [str(error) for error in errors] == ["in connection_made"]
    errors.clear()


def test_a_factory_that_raises_fails_the_connection(world):
    """And leaves nothing open."""
    made = []
    listening = world.reactor.create_server(lambda: made.append(Note()) or made[-1], "127.0.0.1", 0)

    def factory():
        raise LookupError("no protocol")

    with pytest.raises(LookupError):
        world.wait(world.reactor.create_connection(factory, [listening.address]))
    while not made:
        world.turn()
    world.wait(made[0].lost)
    listening.close()


def test_what_the_peer_said_before_it_hung_up_is_read_although_a_write_failed(world):
    """A server's 421 is not lost to the error of our own next command."""
    client, server = world.connect()
    client.transport.pause_reading()
    client.transport.write(b"EHLO")
    world.wait(server.receive(4))
    server.transport.write(b"421 too busy")
    server.transport.close()
    world.wait(server.lost)
    world.turn(3)
    client.transport.write(b"MAIL")  # answered by a reset
    world.turn(3)
    client.transport.resume_reading()
    client.transport.write(b"RCPT")
    world.wait(client.lost)
    assert client.data == b"421 too busy"


def test_the_ends_know_each_other(world):
    """By asyncio's names."""
    client, server = world.connect()
    assert client.transport.get_extra_info("peername") == server.transport.get_extra_info("sockname")
    assert client.transport.get_extra_info("sockname")[:2] == server.transport.get_extra_info("peername")[:2]
    assert client.transport.get_extra_info("nothing", "default") == "default"
    assert client.transport.get_extra_info("cipher") is None


def test_a_server_that_is_closed_keeps_its_connections(world):
    """`connect` closes it each time; a new caller is refused."""
    listening = world.reactor.create_server(Note, "127.0.0.1", 0)
    address = listening.address
    listening.close()
    listening.close()
    with pytest.raises(ConnectionRefusedError, match=str(address[1])):
        world.wait(world.reactor.create_connection(Note, [address]))


def test_closing_after_a_failed_write_tells_that_not_all_went_out(world):
    """None would say that it did."""
    client, server = world.connect()
    client.transport.pause_reading()
    server.transport.abort()
    world.wait(server.lost)
    world.turn(3)
    client.transport.write(b"MAIL")
    client.transport.write(b"RCPT")
    client.transport.close()
    assert isinstance(world.wait(client.lost), ConnectionError)
