"""What holds for every test."""

import gc
import os
import signal

import hypothesis
import pytest

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# A run started in the background of a script inherits SIGINT as ignored, and so would every process that a
# test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        type=int,
        help="of tests/oracle, test_bus_faults, test_chaos, test_e2e_chaos: the one walk or schedule to do",
    )
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="what tests/unit/manager keeps its managers' objects in",
    )


IN_THE_LAB = ("tests/integration/test_e2e_", "tests/integration/test_lab.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of -n auto: one more than there are CPUs, for half of what tests do is waiting."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """To one worker all tests of a file, and all those in the shared lab, which takes long to build. Only
    with -n is there a pytest-xdist to import."""
    from xdist.scheduler import LoadFileScheduling
    from xdist.workermanage import NodeManager

    class FilesAndLab(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "lab" if nodeid.startswith(IN_THE_LAB) else super()._split_scope(nodeid)

    # What an interrupted worker has made it takes down, a lab among it, and is not killed so soon.
    NodeManager.EXIT_TIMEOUT = 30
    config.option.loadscopereorder = False  # files keep their order: the last ones are short
    return FilesAndLab(config, log)


def pytest_collection_finish() -> None:
    """What is there now stays to the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have counted, as `record_property("figure", ...)`."""
    reports = [each for outcome in ("passed", "failed") for each in terminalreporter.getreports(outcome)]
    figures = [str(value) for each in reports for name, value in each.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)


def pytest_keyboard_interrupt() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # after five seconds execnet sends it once more
