"""Every benchmark, one after the other."""

import sys

from bench import deferred_cost, messages

sys.exit(deferred_cost.main() or messages.main())
