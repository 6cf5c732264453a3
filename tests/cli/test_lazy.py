"""What a command imports."""

from __future__ import annotations

import subprocess
import sys


def test_looking_at_the_queue_needs_no_reactor():
    """Nor the delivery, nor rich, nor what tells the version: it starts fast, and works where they cannot."""
    code = (
        "import sys, service.cli, service.cli.queue\n"
        "service.cli.cli(['queue', '--help'], standalone_mode=False)\n"
        "import service.queue.commands\n"
        "late = ('deferred.reactor', 'service.delivery', 'rich', 'importlib.metadata')\n"
        "print([name for name in sys.modules if name.startswith(late)])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
