"""Operators' commands, on their way into the daemon's log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.queue.orders import Order, Orders, write_order

HOLD = Order(change="hold", jobs=2, ids=("a", "b"), by="ann")
RETRY = Order(change="retry", jobs=700, site="mx.test:25")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "poke"


def test_each_order_is_read_once(path: Path) -> None:
    """In turn, also where they came together."""
    orders = Orders(path)
    assert orders.take() == []
    write_order(path, HOLD)
    write_order(path, RETRY)
    assert orders.take() == [HOLD, RETRY]
    write_order(path, RETRY)
    assert orders.take() == [RETRY]
    assert orders.take() == []


def test_a_poke_without_an_order_is_none(path: Path) -> None:
    orders = Orders(path)
    write_order(path, None)
    assert path.read_bytes() == b"\n"
    assert orders.take() == []


def test_what_was_ordered_while_nobody_ran_is_not_told_at_each_start(path: Path) -> None:
    write_order(path, HOLD)
    assert Orders(path).take() == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"garbage\n",
        b'{"change": "burn", "jobs": 1}\n',
        b'{"change": "hold", "jobs": "many"}\n',
        b"\0\xff\n",
        b'{"change": "hold", "jobs": 1, "site": "' + b"x" * 5000 + b'"}\n',
        b"[" * 4000 + b"\n",
        b"x" * 1_000_000,
        b"x" * 5000,
    ],
)
def test_what_is_no_order_is_passed_over(path: Path, octets: bytes) -> None:
    """Whoever may change the queue may write there."""
    orders = Orders(path)
    with path.open("ab") as file:
        file.write(octets)
    for _ in range(10):
        assert orders.take() == []
    write_order(path, None)
    orders.take()
    write_order(path, HOLD)
    assert orders.take() == [HOLD]


def test_an_order_that_is_not_written_to_its_end_is_read_later(path: Path) -> None:
    orders = Orders(path)
    with path.open("ab", buffering=0) as file:
        file.write(b'{"change": "hold",')
        assert orders.take() == []
        file.write(b'"jobs": 3}\n')
    assert orders.take() == [Order(change="hold", jobs=3)]


def test_the_file_does_not_grow_without_end(path: Path) -> None:
    """It is emptied now and then, and also where somebody else does so orders come through."""
    orders = Orders(path)
    for _ in range(3000):
        write_order(path, HOLD)
        assert orders.take() == [HOLD]
        assert path.stat().st_size < 100_000
    os.truncate(path, 0)
    write_order(path, RETRY)
    assert orders.take() == [RETRY]


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """Another file would be emptied, or written to."""
    (tmp_path / "mine").write_text("precious")
    path.symlink_to(tmp_path / "mine")
    for attempt in (lambda: Orders(path), lambda: write_order(path, HOLD)):
        with pytest.raises(OSError, match="symbolic links"):
            attempt()
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_file_that_is_gone_has_no_orders(path: Path) -> None:
    orders = Orders(path)
    path.unlink()
    assert orders.take() == []
