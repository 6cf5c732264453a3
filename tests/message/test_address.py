"""What may be an address, and how its domain is known to the DNS."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.message.address import ascii_form, check_address, check_sender, domain_of, first_control, same_mailbox
from service.message.job import JobError, shown

GOOD = [
    "ann@a.example",
    "ann.b+c=d@sub.a.example",
    "!#$%&'*+/=?^_`{|}~-@a.example",
    "ann@localhost",
    "ann@xn--bcher-kva.example",
    "ann@3com.example",
    "ann@EXAMPLE.Org",
    '"ann b"@a.example',
    r'"a\"b\\c,<d>"@a.example',
    '"@"@a.example',
    '""@a.example',
    "ann@[192.0.2.1]",
    "ann@[IPv6:2001:db8::1]",
    "ann@[ipv6:::1]",
    "jürg@bücher.example",
    "用户@例子.example",
    "ann@faß.example",
    "नमस्\u200dते@a.example",
    "a" * 64 + "@a.example",
    "a@" + ".".join(["b" * 63] * 3) + "." + "c" * 59,
]

BAD = [
    ("", "no domain"),
    ("ann", "no domain"),
    ("ann@", "no domain"),
    ("@a.example", "before the @"),
    ("ann b@a.example", "before the @"),
    (".ann@a.example", "before the @"),
    ("ann.@a.example", "before the @"),
    ("a..b@a.example", "before the @"),
    ("a,b@a.example", "before the @"),
    ("<ann@a.example>", "before the @"),
    ("ann@b@a.example", "before the @"),
    ('"ann@a.example', "before the @"),
    ('"a"b"@a.example', "before the @"),
    ("ann@a.example>", "no domain name"),
    ("ann@a_b.example", "no domain name"),
    ("ann@-a.example", "no domain name"),
    ("ann@a-.example", "no domain name"),
    ("ann@a..example", "no domain name"),
    ("ann@a.example.", "no domain name"),
    ("ann@.example", "no domain name"),
    ("ann@a example", "no domain name"),
    ("ann@" + "a" * 64 + ".example", "no domain name"),
    ("ann@bü_cher.example", "no domain name"),
    ("ann@☃.example", "no domain name"),
    ("ann@192.0.2.1", "is a number"),
    ("ann@１９２.0.2.1", "is a number"),
    ("ann@[192.0.2.256]", "bad literal"),
    ("ann@[192.0.2.1", "bad literal"),
    ("ann@[IPv6:gg::1]", "bad literal"),
    ("ann@[IPv6:fe80::1%eth0]", "bad literal"),
    ("ann@[x:y]", "bad literal"),
    ("a" * 65 + "@a.example", "64 octets"),
    ("ü" * 33 + "@a.example", "64 octets"),
    ("a@" + ".".join(["b" * 63] * 3) + "." + "c" * 61, "254 octets"),
    ("ann\r\nDATA@a.example", "U+000D"),
    ("ann@a.example\n", "U+000A"),
    ("ann@a.example\r\n", "U+000D"),
    ("ann\0@a.example", "U+0000"),
    ("ann\t@a.example", "U+0009"),
    ('"ann\x1b"@a.example', "U+001B"),
    ("ann\x7f@a.example", "U+007F"),
    ("ann\x85@a.example", "U+0085"),
    ("ann\u2028@a.example", "U+2028"),
    ("ann\u202e@a.example", "U+202E"),
    ("ann\u00a0b@a.example", "U+00A0"),
    ("ann\ufffd@a.example", "U+FFFD"),
    ("ann\ud800@a.example", "U+D800"),
    ("ann@exa\u00admple.example", "U+00AD"),
]


@pytest.mark.parametrize("address", GOOD, ids=ascii)
def test_an_address_by_the_rfcs_is_taken_as_it_was_written(address):
    """RFC 5321's Mailbox, and RFC 6531's with UTF-8, come back unchanged."""
    assert check_address(address) == address


@pytest.mark.parametrize(("address", "why"), BAD, ids=ascii)
def test_what_is_no_address_is_refused_by_name_and_reason(address, why):
    """The refusal shows the address, escaped, and says what is wrong with it."""
    with pytest.raises(JobError, match="address") as error:
        check_address(address)
    assert why in str(error.value)
    assert shown(address) in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("ann@EXAMPLE.org", "example.org"),
        ("ann@BÜCHER.example", "xn--bcher-kva.example"),
        ("ann@例子。example", "xn--fsqu00a.example"),
        ('"a@b"@C.example', "c.example"),
        ("ann@[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_a_domain_is_told_as_a_labels_in_lower_case(address, domain):
    """Domains are compared as A-labels, ignoring case."""
    assert domain_of(check_address(address)) == domain


def test_an_international_domain_has_an_ascii_form_and_a_local_part_has_none():
    """Without SMTPUTF8 the domain can go out as its A-label; nothing stands for a local part."""
    assert ascii_form("Ann@Bücher.example") == "Ann@xn--bcher-kva.example"
    assert ascii_form("Ann@A.example") == "Ann@A.example"
    assert ascii_form("jürg@a.example") is None


def test_two_spellings_of_a_domain_are_one_mailbox_but_local_parts_differ_by_case():
    """Only the owner of a domain knows whether the case of a local part matters (RFC 5321, 2.4)."""
    assert same_mailbox("a@BÜCHER.example") == same_mailbox("a@xn--bcher-kva.EXAMPLE")
    assert same_mailbox("A@b.example") != same_mailbox("a@b.example")


@pytest.mark.parametrize("text", ["", "<>"])
def test_the_null_sender_is_a_sender_but_no_address(text):
    """`<>` is allowed only where a sender is asked for."""
    assert check_sender(text) == ""
    with pytest.raises(JobError):
        check_address(text)


@given(st.text(max_size=40) | st.text(alphabet='a@.<>"\\[]:1 \r\n\0ü', max_size=30))
def test_an_accepted_address_never_holds_a_control_and_always_has_a_domain(text):
    """Whatever the text, it is refused by JobError, or it is safe in a command."""
    try:
        address = check_address(text)
    except JobError:
        return
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in address)
    local = address.rpartition("@")[0]
    assert domain_of(address).isascii()
    assert local.startswith('"') or not set(' <>"') & set(local)


@pytest.mark.parametrize("control", [chr(c) for c in (*range(0x20), 0x7F, 0x80, 0x9F, 0xD800)], ids=ascii)
def test_the_first_control_character_is_found(control):
    """C0, DEL, C1 and lone surrogates are all control characters to us."""
    assert first_control(f"aü{control}b") == control
    assert first_control(f"aü{control}b", allowed=control) is None
