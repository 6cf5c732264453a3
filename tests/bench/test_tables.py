"""Tables of figures, for a terminal and for Markdown."""

from __future__ import annotations

import pytest

from bench.tables import Table, mebibytes, number, share, times

TABLE = Table("Sizes", ("what", "octets"), (("a|b", "1"), ("long one", "1,234")), ("measured",))


def test_a_terminal_shows_names_to_the_left_and_figures_to_the_right() -> None:
    assert TABLE.text().splitlines() == [
        "Sizes",
        "",
        "what      octets",
        "a|b            1",
        "long one   1,234",
        "* measured",
    ]


def test_markdown_shows_the_same_and_escapes_what_would_end_a_cell() -> None:
    assert TABLE.markdown().splitlines() == [
        "**Sizes**",
        "",
        "| what | octets |",
        "|---|---:|",
        "| a\\|b | 1 |",
        "| long one | 1,234 |",
        "",
        "* measured",
    ]


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="has not 2 columns"):
        Table("Sizes", ("what", "octets"), (("alone",),))


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.5, "0.50"), (0.0123, "0.012"), (0, "0")],
)
def test_a_number_has_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_units() -> None:
    assert (times(3), share(0.805), mebibytes(3 * 2**19)) == ("3.00 x", "80%", "1.50 MiB")
