"""TLS on a stream: each test runs over sockets and in memory."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess

import pytest

from deferred.defer import CancelledError, Deferred, gather_results
from deferred.protocol import BufferedOctetsError
from deferred.testing import Clock, memory_stream_pair
from tests.deferred.transports import Echo, Note, collect


def secure(world, certificates, client=Note, server=Note):
    """A connection with TLS from the start."""
    return world.connect(
        client, server, client_tls=certificates.client, server_tls=certificates.server, server_hostname="mx.example"
    )


def start(world, certificates, client, server, **client_options):
    """TLS in mid-connection, both sides."""
    return gather_results(
        [
            server.transport.start_tls(certificates.server, server_side=True, timeout=5),
            client.transport.start_tls(certificates.client, server_hostname="mx.example", **client_options),
        ]
    )


def failure_of(deferred: Deferred[object]) -> Deferred[BaseException]:
    """The error as a result."""
    return deferred.add_callbacks(lambda result: AssertionError(f"no error: {result}"), lambda failure: failure.value)


def test_tls_from_the_start(world, certificates):
    """`connection_made` comes once the handshake is done, and what is said travels both ways."""
    client, server = secure(world, certificates, server=Echo)
    assert client.transport.get_extra_info("cipher")[1] == "TLSv1.3"
    assert client.transport.get_extra_info("peercert")["subjectAltName"] == (("DNS", "mx.example"),)
    assert isinstance(client.transport.get_extra_info("ssl_object"), ssl.SSLObject)
    assert client.transport.get_extra_info("sslcontext") is certificates.client
    assert client.transport.get_extra_info("compression") is None
    assert client.transport.get_extra_info("peername")
    assert server.transport.get_extra_info("cipher")
    client.transport.writelines([b"hello", b" ", b"there"])
    assert world.wait(client.receive(11)) == b"hello there"


def test_tls_in_mid_connection(world, certificates):
    """After a talk in the clear, the protocol stays the same."""
    client, server = world.connect(server=Echo)
    client.transport.write(b"STARTTLS")
    world.wait(client.receive(8))
    assert client.transport.get_extra_info("ssl_object") is None
    world.wait(start(world, certificates, client, server))
    client.transport.write(b" and on")
    assert world.wait(client.receive(15)) == b"STARTTLS and on"
    assert client.calls == ["made", "data"]


def test_what_is_written_during_the_handshake_waits_for_it(world, certificates):
    """In its order."""
    client, server = world.connect()
    done = start(world, certificates, client, server)
    client.transport.write(b"one")
    client.transport.writelines([b"two", b"three" * 50_000])
    assert client.transport.get_write_buffer_size() >= 250_006
    world.wait(done)
    assert world.wait(server.receive(250_006)) == b"onetwo" + b"three" * 50_000


def test_a_large_message_goes_through_in_bounded_pieces(world, certificates):
    """Encrypted as the wire takes it: beside the caller's own octets, only a burst is kept."""
    client, server = secure(world, certificates)
    server.transport.pause_reading()
    message = bytes(range(256)) * 80_000
    client.transport.write(message)
    assert "pause" in client.calls
    kept = client.transport._kept
    assert kept < 300_000
    assert client.transport.get_write_buffer_size() > 10_000_000
    server.transport.resume_reading()
    assert world.wait(server.receive(len(message))) == message
    assert client.calls[-1] == "resume"
    assert client.transport.get_write_buffer_size() == 0


def test_a_burst_of_small_writes_is_not_copied_over_and_over(world, certificates):
    """A hundred thousand writes, whose octets are encrypted once each."""
    client, server = secure(world, certificates)
    written = 0
    layer = client.transport._tls
    encrypt = layer._object

    class Counting:
        def write(self, data):
            nonlocal written
            taken = encrypt.write(data)
            written += taken
            return taken

        def __getattr__(self, name):
            return getattr(encrypt, name)

    layer._object = Counting()
    for number in range(100_000):
        client.transport.write(b"%09d\n" % number)
    data = world.wait(server.receive(1_000_000))
    assert data[-10:] == b"000099999\n"
    assert written == 1_000_000


def test_a_paused_reader_is_left_alone_under_tls(world, certificates):
    """What was decrypted or has arrived waits, also through a handshake."""
    client, server = world.connect()
    server.transport.pause_reading()
    world.wait(start(world, certificates, client, server))
    client.transport.write(b"x" * 20_000_000)
    for _ in range(20):
        world.turn(5)
    assert server.data == b""
    assert client.transport.get_write_buffer_size() > 0  # it is held back, not gathered behind the protocol's back
    server.transport.resume_reading()
    assert len(world.wait(server.receive(20_000_000))) == 20_000_000


def test_a_clean_end_is_told_as_none_to_both(world, certificates):
    """close_notify travels both ways."""
    client, server = secure(world, certificates)
    client.transport.write(b"x" * 3_000_000)
    client.transport.close()
    assert world.wait(server.lost) is None
    assert world.wait(client.lost) is None
    assert len(server.data) == 3_000_000
    assert server.calls[-2:] == ["eof", "lost"]


def test_closing_sends_what_an_ending_peer_waits_for(world, certificates):
    """A server may answer and close while the client still sends."""
    client, server = secure(world, certificates)
    server.transport.write(b"bye" * 500_000)
    server.transport.close()
    client.transport.write(b"too late")
    assert world.wait(client.lost) is None
    assert world.wait(server.lost) is None
    assert len(client.data) == 1_500_000


def test_a_stream_that_ends_without_close_notify_was_cut_short(world, certificates):
    """An attacker can forge the end of a TCP stream, not that of TLS."""
    client, server = secure(world, certificates)
    server.transport.write(b"half of ")
    world.wait(client.receive(8))
    server.transport._finish()
    error = world.wait(client.lost)
    assert isinstance(error, ssl.SSLEOFError)
    assert "close_notify" in str(error)
    assert "eof" not in client.calls
    world.wait(server.lost)


def test_an_unknown_authority_fails_the_handshake(world, certificates):
    """With the ssl module's own error, and the connection is lost."""
    client, server = world.connect()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    served = failure_of(server.transport.start_tls(certificates.server, server_side=True))
    error = world.wait(failure_of(client.transport.start_tls(stranger, server_hostname="mx.example")))
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert world.wait(client.lost) is error
    assert "alert" in str(world.wait(served)).lower()
    world.wait(server.lost)


def test_a_certificate_for_another_name_fails_the_connection(world, certificates):
    """`connection_made` never comes."""
    made: list[Note] = []
    served: list[Note] = []
    listening = world.reactor.create_server(collect(served), "127.0.0.1", 0, tls=certificates.server)
    connecting = world.reactor.create_connection(
        collect(made), [listening.address], tls=certificates.client, server_hostname="other.example"
    )
    with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.example"):
        world.wait(connecting)
    listening.close()
    world.turn(5)
    assert made == []


def test_a_peer_that_speaks_no_tls_fails_the_handshake(world, certificates):
    """Its answer is not a record."""
    client, server = world.connect()
    shaking = failure_of(client.transport.start_tls(certificates.client, server_hostname="mx.example"))
    server.transport.write(b"500 what do you mean?\r\n")
    assert isinstance(world.wait(shaking), ssl.SSLError)
    assert client.data == b""
    world.wait(client.lost)


def test_octets_that_came_before_the_handshake_are_an_attack(world, certificates):
    """Written in the clear, they would be read as protected: STARTTLS injection."""
    client, server = world.connect()
    client.transport.pause_reading()
    server.transport.write(b"250 injected\r\n")
    world.turn(5)
    error = world.wait(failure_of(client.transport.start_tls(certificates.client, server_hostname="mx.example")))
    assert isinstance(error, BufferedOctetsError)
    assert world.wait(client.lost) is error
    assert client.data == b""
    world.wait(server.lost)


def test_a_peer_that_hangs_up_during_the_handshake(world, certificates):
    """Fails it with a ConnectionError."""
    client, server = world.connect()
    shaking = failure_of(client.transport.start_tls(certificates.client, server_hostname="mx.example"))
    world.wait(server.receive(100))
    server.transport.close()
    assert isinstance(world.wait(shaking), ConnectionError)
    assert isinstance(world.wait(client.lost), ConnectionError)


def test_the_handshake_has_a_limit_of_its_own(world, certificates):
    """A peer that says nothing is not waited for."""
    client, server = world.connect()
    shaking = client.transport.start_tls(certificates.client, server_hostname="mx.example", timeout=0.02)
    assert isinstance(world.wait(failure_of(shaking)), TimeoutError)
    assert isinstance(world.wait(client.lost), TimeoutError)
    world.wait(server.lost)


def test_a_server_does_not_wait_for_a_silent_caller(world, certificates):
    """Nothing is reported: there is no protocol yet."""
    made: list[Note] = []
    listening = world.reactor.create_server(collect(made), "127.0.0.1", 0, tls=certificates.server, tls_timeout=0.02)
    client = world.wait(world.reactor.create_connection(Note, [listening.address]))
    world.wait(client.lost)
    listening.close()
    assert made == []


class Faulty(Note):
    """An application whose files cannot be opened."""

    def connection_made(self, transport):
        raise PermissionError("the mailbox")


def no_protocol():
    """A factory with the same trouble."""
    raise FileNotFoundError("the settings")


@pytest.mark.parametrize("factory", [Faulty, no_protocol])
def test_an_applications_own_error_is_reported_under_tls(world, certificates, errors, factory):
    """It is no failed handshake, though it is an OSError too."""
    listening = world.reactor.create_server(factory, "127.0.0.1", 0, tls=certificates.server)
    client = world.wait(
        world.reactor.create_connection(
            Note, [listening.address], tls=certificates.client, server_hostname="mx.example"
        )
    )
    world.wait(client.lost)
    listening.close()
    assert type(errors.pop()) in (PermissionError, FileNotFoundError)
    assert errors == []


def test_a_context_that_cannot_serve_is_reported(world, certificates, errors):
    """Every caller is turned away, which is not their fault."""
    listening = world.reactor.create_server(Note, "127.0.0.1", 0, tls=certificates.client)
    client = world.wait(world.reactor.create_connection(Note, [listening.address]))
    world.wait(client.lost)
    listening.close()
    assert isinstance(errors.pop(), ssl.SSLError)
    assert errors == []


def test_a_handshake_can_be_cancelled(world, certificates):
    """The connection goes with it."""
    client, server = world.connect()
    shaking = client.transport.start_tls(certificates.client, server_hostname="mx.example")
    shaking.cancel()
    assert isinstance(world.wait(failure_of(shaking)), CancelledError)
    assert world.wait(client.lost) is None
    world.wait(server.lost)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_during_the_handshake_fails_it(world, certificates, how):
    """Whoever waits for it hears."""
    client, server = world.connect()
    shaking = client.transport.start_tls(certificates.client, server_hostname="mx.example")
    getattr(client.transport, how)()
    assert isinstance(world.wait(failure_of(shaking)), ConnectionAbortedError)
    assert world.wait(client.lost) is None
    world.wait(server.lost)


def test_tls_cannot_be_started_twice_or_too_late(world, certificates):
    """Nor half-closed."""
    client, server = world.connect()
    world.wait(start(world, certificates, client, server))
    again = client.transport.start_tls(certificates.client, server_hostname="mx.example")
    assert isinstance(world.wait(failure_of(again)), RuntimeError)
    assert not client.transport.can_write_eof()
    with pytest.raises(RuntimeError, match="half-close"):
        client.transport.write_eof()
    client.transport.close()
    world.wait(client.lost)
    late = client.transport.start_tls(certificates.client, server_hostname="mx.example")
    assert isinstance(world.wait(failure_of(late)), ConnectionAbortedError)
    world.wait(server.lost)


def test_a_session_is_resumed(world, certificates):
    """A second handshake with the same server costs less."""
    certificates.client.maximum_version = ssl.TLSVersion.TLSv1_2
    client, server = world.connect()
    world.wait(start(world, certificates, client, server))
    session = client.transport.get_extra_info("ssl_object").session
    client, server = world.connect()
    world.wait(start(world, certificates, client, server, session=session))
    assert client.transport.get_extra_info("ssl_object").session_reused


def test_a_broken_record_loses_the_connection(world, certificates):
    """What came before it is delivered, and the peer is told what was wrong."""
    client, server = secure(world, certificates)
    server.transport.write(b"good")
    server.transport.transmit(b"this is no TLS record at all")
    assert isinstance(world.wait(client.lost), ssl.SSLError)
    assert client.data == b"good"
    assert "alert" in str(world.wait(server.lost)).lower()


class Contrary(Note):
    """Wants to keep its half open."""

    keep = True

    def eof_received(self):
        super().eof_received()
        return True


def test_under_tls_no_half_is_kept_open(world, certificates):
    """The answer of `eof_received` does not count."""
    client, server = secure(world, certificates, server=Contrary)
    client.transport.close()
    assert world.wait(server.lost) is None
    assert world.wait(client.lost) is None


def test_a_peer_that_never_answers_close_notify_is_not_waited_for_long(certificates):
    """Five seconds, on the stream's own clock."""
    clock = Clock()
    client, server = Note(), Note()
    ends = memory_stream_pair(clock)
    ends[1].begin(server)
    ends[0].begin(client)
    done = gather_results(
        [
            ends[1].start_tls(certificates.server, server_side=True),
            ends[0].start_tls(certificates.client, server_hostname="mx.example"),
        ]
    )
    clock.run(done)
    clock.settle()
    ends[1].stall()
    ends[0].close()
    clock.advance(4.9)
    assert "lost" not in client.calls
    clock.advance(0.2)
    assert client.calls[-1] == "lost"
    assert client.error is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_keys_can_be_changed_in_mid_stream(leaf, certificates, reactor, run, tmp_path):
    """A KeyUpdate comes between records, and is answered with the next write (RFC 8446, 4.6.3)."""
    seen = []
    certificates.client._msg_callback = lambda c, direction, v, content, kind, d: seen.append((direction, kind.name))
    pem = tmp_path / "server.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(str(pem))
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(pem), "-key", str(pem), "-tls1_3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        while not (accepting := re.match(rb"ACCEPT 127.0.0.1:(\d+)", server.stdout.readline())):
            pass
        address = ("127.0.0.1", int(accepting[1]))
        client = run(reactor.create_connection(Note, [address], tls=certificates.client, server_hostname="mx.example"))
        server.stdin.write(b"before\n")
        server.stdin.flush()
        run(client.receive(7))
        server.stdin.write(b"K\n")  # a command only at the beginning of what it reads at once
        server.stdin.flush()
        while ("read", "KEY_UPDATE") not in seen:
            turn: Deferred[None] = Deferred()
            reactor.call_later(0.001, turn.callback, None)
            run(turn)
        server.stdin.write(b"after\n")
        server.stdin.flush()
        assert run(client.receive(13)) == b"before\nafter\n"
        client.transport.write(b"a line under new keys\n")
        while b"a line under new keys" not in server.stdout.readline():
            pass
        client.transport.abort()
        run(client.lost)
        server.kill()
    assert [direction for direction, kind in seen if kind == "KEY_UPDATE"] == ["read", "write"]
