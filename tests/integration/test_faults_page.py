"""vsfwd/FAULTS.md: its commands, as they stand there, by a shell on a host; and the alarms that it names."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.daemon_host import Setting

VSFWD = Path(__file__).parents[2] / "vsfwd"
PAGE = (VSFWD / "FAULTS.md").read_text()


def by_shell(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True)


@pytest.mark.slow
async def test_every_command_shows_what_the_page_says(setting: Setting) -> None:
    """None fails, and each line that is shown begins as one that is said."""
    await setting.with_policy()
    assert setting.host.ping()
    vsfwctl = shlex.join([sys.executable, "-m", "vsfwd.ctl", "--socket", str(setting.host.socket)])
    examples = re.findall(r"^    \$ (.*)\n((?:    [^$\n].*\n)*)", PAGE, re.MULTILINE)
    assert len(examples) == 4
    for command, shown in examples:
        script = f'set -eu -o pipefail\nvsfwctl() {{ {vsfwctl} "$@"; }}\n{command}'
        done = by_shell(script)
        assert (done.returncode, done.stderr) == (0, ""), command
        labels = [[line.split()[0] for line in text.splitlines()] for text in (shown, done.stdout)]
        assert labels[0] in ([], labels[1]), command


def test_the_alarms_that_it_names_are_those_there_are() -> None:
    """By their names in the code."""
    named = set(re.findall(r"`((?:dfw|management_channel)_\w+)`", PAGE))
    code = "".join(path.read_text() for path in VSFWD.rglob("*.py"))
    assert named
    assert {name for name in named if f'"{name}"' not in code} == set()
