"""What holds for every test."""

import signal

import pytest

# A run started in the background of a script inherits SIGINT as ignored, and so would every process that a
# test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", type=int, help="what tests/oracle makes its packets of; default: see its tests"
    )
