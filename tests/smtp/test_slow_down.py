"""Which answers ask us for less: what real servers say, word for word but for addresses and links."""

from __future__ import annotations

from time import process_time

import pytest

from service.smtp.reply import Reply, ReplyReader
from service.smtp.slow_down import asks_to_slow_down

RATE_OR_CONNECTIONS = """
421 4.7.28 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail originating from your IP - gsmtp
421 4.7.0 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail originating from your IP address.
421 4.4.5 Server busy, try again later.
450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from
450 4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend your message at a later time.
450 4.2.1 Peak SMTP relay limit exceeded for customer. This is a temporary error.
421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1
421 RP-001 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed.
421 PR(ct1) The mail server IP connecting to Windows Live Hotmail server has exceeded the connection limit allowed.
451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)
451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)
451 4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections. (S3115)
432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.
432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded [Hostname=X.prod.outlook.com]
421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel
421 4.4.2 Message submission rate for this client has exceeded the configured limit
454 Throttling failure: Maximum sending rate exceeded
454 Throttling failure: Daily message quota exceeded
421 Too many concurrent SMTP connections
421 mx.example: Too many concurrent SMTP connections; please try again later.
421 4.7.0 mx.example Error: too many connections from 192.0.2.1
421 4.7.0 mx.example Error: too many new TLS sessions from 192.0.2.1
450 4.7.1 Error: too much mail from 192.0.2.1
450 4.7.1 Error: too many AUTH commands from 192.0.2.1
421 mx.example: Too much load; please try again later.
450 4.7.1 Error: too many recipients from 192.0.2.1
421 4.3.2 All server ports are busy
421 4.3.2 Connection rate limit exceeded.
452 4.3.2 Too many open connections.
421 web.de (mxweb113) Nemesis ESMTP Service unavailable Too many messages have been received in a short period of time.
421 mwinf5c42 ME Trop de connexions, veuillez verifier votre configuration. Too many connections, slow down. OFR004_104
452 Too many recipients received this hour
451 4.7.1 <mx.example[192.0.2.1]>: Client host rejected: Please try again slower
450 4.7.1 Domain example.org has exceeded the max emails per hour (100/100 (100%)) allowed. Message discarded.
451 4.7.1 Ratelimit "to_ip" exceeded
450 4.7.1 Rate limit reached, retry later.
451 All available IPs are at maximum connection limit
451 Requested action aborted: This mail account has sent too many messages in a short amount of time.
421 4.7.1 Throttled
421 sorry, no more connections allowed from your host
451 4.4.5 mx.example
421 4.7.28 mx.example
""".strip().splitlines()

SOMETHING_ELSE = """
450 4.2.0 <bob@b.example>: Recipient address rejected: Greylisted, see http://postgrey.example/help/b.example.html
451 4.7.1 Greylisting in action, please come back in 00:05:00
450 4.7.1 Greylisted: you came back too quickly, try again in 300 seconds
450 4.7.1 Client host rejected: cannot find your hostname, [192.0.2.1]
450 4.1.8 <ann@a.example>: Sender address rejected: Domain not found
450 Requested mail action not taken: mailbox busy
450 4.2.1 <bob@b.example>: mailbox is temporarily disabled
452 4.2.2 The email account that you tried to reach is over quota.
452 4.2.2 Too many messages in the mailbox
452 4.3.1 Insufficient system storage
452 4.5.3 Error: too many recipients
452 4.5.3 Your message has too many recipients. For more information regarding Google's sending limits, visit
452 4.5.3 Domain policy size per transaction exceeded, please try this recipient in a separate transaction.
452 Too many recipients in this message; the limit is 100 per message
451 4.3.0 Mail server temporarily rejected message.
451 4.3.0 Multiple destination domains per transaction is unsupported. Please try again.
451 4.4.2 Timeout - closing connection.
421 4.4.2 mx.example Error: timeout exceeded, closing connection
421 4.4.2 Session time limit exceeded
421 4.4.2 Maximum session time exceeded
451 4.4.6 Too many hops
421 4.7.0 mx.example Error: too many errors
421 4.7.0 Too many protocol errors (6) on this connection, closing transmission channel.
421 4.7.0 Try again later, closing connection.
421 4.7.0 [TS01] Messages from 192.0.2.1 temporarily deferred due to user complaints - 4.16.55.1
421 4.7.0 This message is suspicious due to the very low reputation of the sending domain.
451 4.7.1 Service unavailable - try again later
451 Message temporarily deferred - [170]
454 4.7.0 Temporary authentication failure: Connection lost to authentication server
552 5.3.4 Message size exceeds fixed limit
""".strip().splitlines()


def replied(line: str) -> Reply:
    """The reply as it comes off the wire."""
    (reply,) = ReplyReader().replies(line.encode() + b"\r\n")
    return reply


def judged(line: str) -> bool:
    reply = replied(line)
    return asks_to_slow_down(reply.code, reply.enhanced, reply.text)


@pytest.mark.parametrize("line", RATE_OR_CONNECTIONS)
def test_who_speaks_of_rate_or_connections_asks_us_to_slow_down(line: str) -> None:
    """Gmail, Yahoo, Microsoft, Amazon, Orange, United Internet, SendGrid; Cisco, Postfix, sendmail, Exim, rspamd."""
    assert judged(line)


@pytest.mark.parametrize("line", SOMETHING_ELSE)
def test_who_speaks_of_something_else_does_not(line: str) -> None:
    """Greylisting, full mailboxes, recipients of one message, timeouts, errors, complaints, and what says nothing."""
    assert not judged(line)


@pytest.mark.parametrize("line", ["550 5.7.1 Too many connections", "554 5.7.28 rate limit exceeded", "250 2.0.0 ok"])
def test_only_a_4xx_asks_for_anything(line: str) -> None:
    """A refusal is final, whatever its reason."""
    assert not judged(line)


def test_what_is_no_reply_asks_for_nothing() -> None:
    """A host failure without an answer has text of our own."""
    assert not asks_to_slow_down(None, "", "too many connections")


def test_a_reply_of_many_lines_is_read_as_one() -> None:
    """The words may stand on two of them."""
    assert judged("450-4.2.1 The user you are trying to contact is receiving mail at a\r\n450 4.2.1 rate that prevents")


@pytest.mark.parametrize(
    "address",
    [
        "rate-limit@b.example",
        "throttled@b.example",
        "bob@throttled.example",
        '"too many connections"@b.example',
        '"a\\" slow down"@b.example',
        "rate-limit.example",
    ],
)
def test_nobody_can_slow_a_site_by_an_address(address: str) -> None:
    """Servers repeat addresses and domains, and who fills in a form chooses one."""
    assert not judged(f"450 4.2.0 <{address}>: Recipient address rejected: try again later")
    assert judged(f"450 4.7.1 <{address}>: Recipient address rejected: rate limit exceeded")


@pytest.mark.parametrize(
    "piece",
    ["too many ", "number of open ", "concurrent ", '"', '"@', "a", "maximum number of ", "server is too ", "\\x00"],
)
def test_a_hostile_text_is_judged_in_little_time(piece: str) -> None:
    """As long as a text can be, which is kept for the reply's sake."""
    start = process_time()
    for _ in range(100):
        judged("450 4.7.1 " + piece * (990 // len(piece)))
    assert process_time() - start < 2
