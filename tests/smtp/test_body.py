"""Content on its way: what goes out comes back, dot-stuffed or in chunks, and only the end ends it."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.smtp.body import Chunker, DotStuffer


def stuffed(*pieces: bytes) -> bytes:
    """The content as it travels."""
    stuffer = DotStuffer()
    return b"".join([stuffer.stuff(piece) for piece in pieces]) + stuffer.end()


def received(octets: bytes) -> bytes:
    """What a server makes of it, octet for octet as RFC 5321, 4.5.2 says; nothing may be left behind the end."""
    content = bytearray()
    while True:
        line, found, octets = octets.partition(b"\r\n")
        assert found, "the content does not end"
        if line == b".":
            assert octets == b"", "something is left behind the end"
            return bytes(content)
        content += line.removeprefix(b".") + b"\r\n"


CONTENT = b"..\r\n.\r\n\r\n.a.\r\n.\r\n"


def test_every_way_to_cut_a_message_gives_the_same_octets():
    """Up to three cuts, at any places."""
    whole = stuffed(CONTENT)
    assert received(whole) == CONTENT
    for cuts in combinations(range(len(CONTENT) + 1), 3):
        first, second, third = cuts
        pieces = CONTENT[:first], CONTENT[first:second], CONTENT[second:third], CONTENT[third:]
        assert stuffed(*pieces) == whole


def test_a_lone_dot_at_a_pieces_start_neither_ends_the_message_nor_is_doubled_in_a_line():
    """It depends on how the piece before ended."""
    assert stuffed(b"a\r\n", b".\r\nb\r\n") == b"a\r\n..\r\nb\r\n.\r\n"
    assert stuffed(b"a", b".\r\n") == b"a.\r\n.\r\n"
    assert stuffed(b"a\r", b"\n", b".", b"\r\n") == b"a\r\n..\r\n.\r\n"


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r", b"a\r\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
    ],
)
def test_the_final_dot_stands_on_a_line_of_its_own(content, sent):
    """A line end is added where the content has none; an empty message is a lone dot."""
    assert stuffed(content) == sent
    assert stuffed(*(content[i : i + 1] for i in range(len(content)))) == sent


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\n.\r"])
def test_no_sloppy_line_end_can_end_the_message_early(end):
    """Readers of jobs leave no bare LF; should one get here, a dot behind it is doubled (SMTP smuggling)."""
    for cut in range(len(end) + 1):
        sent = stuffed(b"a" + end[:cut], end[cut:] + b"MAIL FROM:<>\r\n")
        assert end not in sent.removesuffix(b"\r\n.\r\n")


def test_what_needs_no_change_is_not_copied():
    """Sending is copying already; 50 MB need not be copied twice."""
    piece = b"nothing to do here\r\n" * 1000
    assert DotStuffer().stuff(piece) is piece


lines = st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\r", b".").replace(b"\n", b".")), max_size=12)


@given(lines, st.lists(st.integers(0, 120), max_size=6))
def test_any_content_in_any_pieces_comes_back(lines, cuts):
    """Against an un-stuffer that knows nothing of ours."""
    content = b"".join(line + b"\r\n" for line in lines)
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    pieces = [content[start:end] for start, end in pairwise(edges)]
    assert received(stuffed(*pieces)) == content


# chunks


def in_chunks(*pieces: bytes) -> list[tuple[int, bool, bytes]]:
    """The chunks as a server reads them, each with its length and whether it is the last."""
    chunker = Chunker()
    octets = b"".join([chunker.chunk(piece) for piece in pieces[:-1]]) + chunker.last(pieces[-1])
    chunks = []
    while octets:
        line, _, octets = octets.partition(b"\r\n")
        verb, length, *words = line.split(b" ")
        assert verb == b"BDAT"
        assert words in ([], [b"LAST"])
        chunks.append((int(length), bool(words), octets[: int(length)]))
        octets = octets[int(length) :]
    return chunks


@pytest.mark.parametrize(
    ("pieces", "chunks"),
    [
        ([b""], [(0, True, b"")]),
        ([b"a\r\n"], [(3, True, b"a\r\n")]),
        ([b"a"], [(3, True, b"a\r\n")]),
        ([b"a\r\n", b""], [(3, False, b"a\r\n"), (0, True, b"")]),
        ([b"a\r", b"\n", b""], [(2, False, b"a\r"), (1, False, b"\n"), (0, True, b"")]),
        ([b"a\r", b"\n"], [(2, False, b"a\r"), (1, True, b"\n")]),
        ([b"a", b"", b""], [(1, False, b"a"), (2, True, b"\r\n")]),
        ([b".\r\n"], [(3, True, b".\r\n")]),
    ],
)
def test_a_chunk_says_its_length_and_the_last_one_ends_in_a_line_end(pieces, chunks):
    """What is added at the end is what DATA would add; an empty chunk that is not the last is none."""
    assert in_chunks(*pieces) == chunks


@given(lines, st.lists(st.integers(0, 120), max_size=6))
def test_any_content_in_any_chunks_comes_back(lines, cuts):
    """Octet for octet."""
    content = b"".join(line + b"\r\n" for line in lines)
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    pieces = [content[start:end] for start, end in pairwise(edges)] or [b""]
    assert b"".join(octets for _, _, octets in in_chunks(*pieces)) == content
