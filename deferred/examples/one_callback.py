"""One callback: get a page and print it.

python -m deferred.examples.one_callback http://example.org/
"""

from __future__ import annotations

import sys

from deferred.reactor import get_reactor
from deferred.web import get_page


def print_contents(contents: bytes) -> None:
    """A callback: the Deferred calls it when what was promised is there."""
    print("The Deferred has called print_contents with these contents:")
    print(contents.decode(errors="replace"))


def main(url: str) -> None:
    """Print the page at `url`."""
    reactor = get_reactor()

    # get_page comes back at once, with a Deferred: the promise of the contents
    d = get_page(url)
    print("A Deferred is here, the page is not.")

    # what is to happen with the contents, once they are here
    d.add_callback(print_contents)

    # whatever became of it, the program ends then; a failure goes on, and is reported, since nobody has taken it
    def stop(result: object) -> object:
        reactor.stop()
        return result

    d.add_both(stop)

    # from here on the reactor waits for us, and calls what is due
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
