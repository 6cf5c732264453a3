"""Job ids: in time order, readable, safe."""

from __future__ import annotations

import threading
from random import Random

import pytest

from service.queue.ids import Ids, id_number, id_text


def test_an_id_is_its_text_and_back():
    """Twelve digits that sort as the numbers do; either case, and what is easily misread, are understood."""
    numbers = [0, 1, 31, 32, 1023, 1024, 1 << 40, (1 << 60) - 1]
    texts = [id_text(number) for number in numbers]
    assert [id_number(text) for text in texts] == numbers
    assert sorted(texts) == texts
    assert id_number(id_text(1 << 55 | 33).upper()) == 1 << 55 | 33
    assert id_number("00000000oil0") == id_number("000000000110")


@pytest.mark.parametrize(
    "text", ["", "0", "u00000000000", "0000 0000000", "-00000000000", "00_000000000", "０" * 12, "!" * 12]
)
def test_what_is_no_id_is_none(text):
    """Anything but twelve digits of the alphabet."""
    assert id_number(text) is None


def test_ids_only_grow():
    """Also within a millisecond, when the clock goes back, and after those of a former process."""
    now = [1_790_000_000.0]
    ids = Ids(lambda: now[0], Random(1))
    made = [ids.mint() for _ in range(100)]
    now[0] -= 86400
    made += [ids.mint() for _ in range(3)]
    made += [Ids(lambda: 0.0, Random(1), made[-1]).mint()]
    assert made == sorted(set(made))


def test_threads_may_ask_at_the_same_time():
    """No id is given twice: while one thread is between looking and counting, another has to wait."""
    stopped, go_on = threading.Event(), threading.Event()

    class Slow(Random):
        def getrandbits(self, bits):
            if threading.current_thread() is not threading.main_thread():
                stopped.set()
                assert go_on.wait(10)
            return super().getrandbits(bits)

    ids = Ids(lambda: 0.0, Slow(1))
    thread = threading.Thread(target=ids.mint)
    thread.start()
    assert stopped.wait(10)
    assert not ids._lock.acquire(blocking=False)
    go_on.set()
    thread.join()
