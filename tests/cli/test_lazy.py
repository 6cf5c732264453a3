"""What a command imports."""

from __future__ import annotations

import subprocess
import sys


def test_looking_at_the_queue_needs_no_reactor():
    """Nor the delivery, nor rich: it starts fast, and works where they cannot."""
    code = (
        "import sys, service.cli, service.cli.queue\n"
        "service.cli.cli(['queue', '--help'], standalone_mode=False)\n"
        "import service.queue.commands\n"
        "print([name for name in sys.modules if name.startswith(('deferred.reactor', 'service.delivery', 'rich'))])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
