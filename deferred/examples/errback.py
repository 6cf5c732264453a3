"""An errback: ask for a page that does not exist, and see who is called.

python -m deferred.examples.errback http://example.org/does-not-exist
"""

from __future__ import annotations

import sys
from typing import Any

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.reactor import get_reactor
from deferred.web import get_page


def lower_case(contents: bytes) -> str:
    """A callback, passed over when there is a failure, like the lines of a try block after the one that raised."""
    return contents.decode(errors="replace").lower()


def print_contents(contents: str) -> None:
    """Another callback, passed over just the same."""
    print("The Deferred has called print_contents with these contents:")
    print(contents)


def explain(failure: Failure) -> None:
    """An errback: the Deferred calls it, as an except block, when what was promised cannot come."""
    print(f"The Deferred has called explain with a failure: {failure.get_error_message()}")


def main(url: str) -> None:
    """Print the page at `url` in lower case, or why there is none."""
    reactor = get_reactor()
    d: Deferred[Any] = get_page(url)  # Any: each callback makes something else of it

    # the callbacks for when all goes well ...
    d.add_callback(lower_case)
    d.add_callback(print_contents)

    # ... and one errback for all of it: for the page that was not there, and for callbacks that raised
    d.add_errback(explain)

    # it has dealt with the failure, so the chain is a good one again from here on
    d.add_callback(lambda _: reactor.stop())
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
