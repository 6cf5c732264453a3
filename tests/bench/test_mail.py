"""The messages that benchmarks send."""

from __future__ import annotations

import pytest

from bench.mail import Mail, filler, message_id, parts


@pytest.mark.parametrize("octets", [2, 3, 81, 82, 83, 84, 164, 165, 166, 4096])
def test_filler_is_whole_lines_of_exactly_so_many_octets(octets: int) -> None:
    text = filler(octets)
    assert len(text) == octets
    assert text.endswith(b"\r\n")
    assert text.replace(b"\r\n", b"").find(b"\r") == text.replace(b"\r\n", b"").find(b"\n") == -1


def test_every_message_has_its_own_number_its_size_and_a_domain_in_turn() -> None:
    mail = Mail(messages=3, size=1000, domains=("a.example", "b.example"), first=7)
    assert [mail.recipient(n) for n in mail.numbers] == ["user7@b.example", "user8@a.example", "user9@b.example"]
    assert {len(mail.content(n)) for n in mail.numbers} == {1000}
    assert b"\r\nMessage-ID: <8.99@bench.example>\r\n" in mail.content(8, stamp=99)


def test_a_message_id_gives_its_number_and_stamp_back() -> None:
    assert parts(message_id(5, 123)) == (5, 123)
    with pytest.raises(ValueError, match="invalid literal"):
        parts("<deferd-own@somewhere.example>")
