"""Jobs as they should be, and what makes them odd: texts for values, and octets to put into files."""

from __future__ import annotations

from typing import Any, Final

LETTER: Final[dict[str, Any]] = {
    "from": "Shop <shop@example.org>",
    "to": ["ann@example.net", "Bob <bob@example.com>"],
    "cc": "carl@bücher.example",
    "subject": "Grüße",
    "text": "Thank you.\n.\n..\nFrom me\n",
    "html": "<p>Thank you.</p>",
    "attachments": [{"path": "invoice.pdf", "name": "Rechnung für Ann.pdf", "type": "application/pdf"}],
    "headers": {"X-Order": "17", "Reply-To": "help@example.org"},
    "not_before": "2026-12-01T08:00:00Z",
    "expires": "2d",
    "key": "order-17",
    "in_doubt": "hold",
    "priority": "bulk",
    "tags": {"order": 17},
}
MESSAGE: Final[dict[str, Any]] = {
    "sender": "shop@example.org",
    "recipients": ["ann@example.net", "jürg@example.com"],
    "message": "Subject: x\nBcc: eve@e.example\n\nhi\n.\n",
    "expires": 90,
}
EML: Final = (
    b'X-Sender: shop@example.org\r\nX-Receiver: ann@a.example, "b b"@b.example\r\n'
    b"Priority: non-urgent\r\n"
    b"Date: x\r\nFrom: =?utf-8?b?w5w=?= <shop@example.org>\r\nTo: team: ann@a.example (Ann), Bob <bob@b.example>;\r\n"
    b"Cc: \xfc@c.example\r\nBcc: eve@e.example,\r\n eva@e.example\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n"
    b".\r\n..\r\nhi\r\n"
)

ODD_TEXTS: Final = [
    "", " ", "\0", "\r\n", "a\r\nBcc: eve@e.example", "\x1b[2J", "\x85", "\u2028", "\u202e", "\u200b", "\ufeff",
    "\ufffd",
    "\U0010ffff", "ann@a.example", "<>", "<ann@a.example>", "ann@", "@a.example", '"\\"@a.example',
    '"a b"@a.example',
    "Ann <ann@a.example>, bob@b.example", "team: ann@a.example;", "ann@[192.0.2.1]", "ann@[IPv6:::1]",
    "ann@[IPv6:%eth0]",
    "jürg@bücher.example", "ann@xn--bcher-kva.example", "ann@xn--a.example", "ann@" + "a." * 120 + "example",
    "a" * 70 + "@b.c",
    "=?utf-8?q?a=0D=0ABcc:_eve@e.example?= <a@a.example>", "(" * 500, "a," * 500, '"' * 99, "<" * 99, ".", "..",
    "/etc/passwd",
    "2026-12-01T08:00:00Z", "2026-12-01 08:00:00 +00:00", "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-02-30T00:00:00Z", "2026-12-01T08:00:60Z", "٢٠٢٦-12-01T08:00:00Z", "2d", "1h30m", "-1s", "0", "1e400",
    "9" * 500 + "d",
    "nan", "inf", "no", "~", "null", "0x10", "1_000", "12:30", "!!python/object/apply:os.system", "*a", "&a",
    "${HOME}",
    "hold", "retry", "high", "bulk",
    "text/html", "multipart/mixed", "text/plain; charset=x\r\nX: y", "invoice.pdf", "x",
]  # fmt: skip
PIECES: Final = [
    b"\r", b"\n", b"\r\n", b"\n.\n", b"\r\n.\r\n", b"\0", b"\x1b", b"\x7f", b"\x85", b"\xff", b"\xc3",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf",
    b"[", b"]", b"{", b"}", b'"', b"\\", b"\\u0000", b"\\ud800", b"'", b":", b": ", b",", b"-", b"- ", b"? ",
    b"&a", b"*a", b"!", b"|\n", b">",
    b"%", b"@", b"`", b"#", b"---\n", b"...\n", b"<", b">", b"(", b")", b"From ", b"X-Sender:", b"X-Receiver: ",
    b"\r\nPriority: urgent",
    b"Bcc:", b"\t", b" ",
    b"[" * 30, b"9" * 5000, b"1e999", b"NaN", b"-Infinity", b"null", b"2001-01-01", b"<<: ", b"=?utf-8?q?=0A?=",
]  # fmt: skip
