"""The log of a process."""

import subprocess
import sys

PROGRAM = """
import logging
from vsfwd.log import log_to_stderr
log_to_stderr()
try:
    raise ConnectionError("refused")
except ConnectionError:
    logging.getLogger("aiormq").warning("a task failed", exc_info=True)
"""


def test_an_entry_is_a_line_with_a_traceback_too() -> None:
    """Also of a library, which logs in its own way."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    [line] = done.stderr.splitlines()
    assert line.startswith("level=WARNING log=aiormq event='a task failed'\\nTraceback")
    assert line.endswith("ConnectionError: refused")
