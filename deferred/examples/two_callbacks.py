"""Two callbacks: what the first one returns is what the second one gets.

python -m deferred.examples.two_callbacks http://example.org/
"""

from __future__ import annotations

import sys
from typing import Any

from deferred.defer import Deferred
from deferred.reactor import get_reactor
from deferred.web import get_page


def lower_case(contents: bytes) -> str:
    """The first callback: it makes something new of the contents, and hands it on."""
    return contents.decode(errors="replace").lower()


def print_contents(contents: str) -> None:
    """The second callback: it never sees the page as it came."""
    print("The Deferred has called print_contents with these contents:")
    print(contents)


def main(url: str) -> None:
    """Print the page at `url` in lower case."""
    reactor = get_reactor()
    d: Deferred[Any] = get_page(url)  # Any: each callback makes something else of it

    # a chain: the page goes in on top, and each callback gets what the one before returned
    d.add_callback(lower_case)
    d.add_callback(print_contents)

    def stop(result: object) -> object:
        reactor.stop()
        return result

    d.add_both(stop)
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
