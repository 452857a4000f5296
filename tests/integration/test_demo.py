"""`./run demo`: it ends well only if every verdict is the expected one, and leaves nothing on whatever way
it ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.documents import by_shell, checkout, commands
from vagrant.lab import network
from vagrant.lab.waiting import wait_until

WRONG = """
import dataclasses
from vagrant.lab import demo
demo.CHECKS = (dataclasses.replace(demo.CHECKS[0], expected=demo.DROPPED), *demo.CHECKS[1:])
demo.main()
"""


def nothing_left() -> bool:
    return network.found("demo") == [] and not Path("/run/vsfw-demo").exists()


@pytest.mark.slow
def test_the_demo_ends_well(tmp_path: Path) -> None:
    """As the README has it: a line for every attempt, the rule that decided beside it; nothing is left."""
    demo, _ = commands("README.md", "vsfwd")[0].splitlines()
    done = by_shell(demo, {}, cwd=checkout(tmp_path), timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("clients to web", "nobody else to db", "rejected", "Every verdict was the expected one."):
        assert words in done.stdout
    assert nothing_left()


@pytest.mark.slow
def test_the_demo_fails_when_a_verdict_is_another_one() -> None:
    """One expectation is turned round: the exit status says so, the count is right."""
    done = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, timeout=150)
    assert done.returncode == 1
    assert "2 of the verdicts above" in done.stderr, done.stderr
    assert nothing_left()


@pytest.mark.slow
def test_the_demo_may_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C while it shows its table."""
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "vagrant.lab.demo"], stdout=output, stderr=output)
    wait_until(lambda: "three-tier policy" in log.read_text(), "the policy published", timeout_s=100)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert nothing_left()
