"""The table of kernels in README.md: what is made of the runs of `./run vm`."""

import json
from pathlib import Path

import pytest

from vagrant.vm import kernels

JUNIT = """<testsuites><testsuite tests="9" failures="{failures}" errors="{errors}" skipped="2">
  <properties>
    <property name="kernel" value="6.1.0-56-cloud-amd64"/><property name="hooks" value="clsact"/>
  </properties>
</testsuite></testsuites>"""
OLD = {"kernel": "6.1.0-56", "hooks": "clsact", "tests": "7 passed"}
NEW = {"kernel": "6.12.117", "hooks": "tcx", "netkit": "a|b", "tests": "6 passed, 1 failed"}


def test_a_run_says_what_it_found_and_how_its_tests_ended() -> None:
    """Properties of the JUnit file, and its counts."""
    run = kernels.found(JUNIT.format(failures=0, errors=0))
    assert run == {"kernel": "6.1.0-56-cloud-amd64", "hooks": "clsact", "tests": "7 passed, 2 not for it"}
    assert kernels.passed(run)


@pytest.mark.parametrize(("failures", "errors"), [(1, 0), (0, 1), (7, 0)])
def test_a_test_that_fails_or_does_not_begin_is_a_failed_run(failures: int, errors: int) -> None:
    """And so is a run without one that passed."""
    assert not kernels.passed(kernels.found(JUNIT.format(failures=failures, errors=errors)))
    assert not kernels.passed({"tests": "2 not for it"})


def test_a_column_for_each_kernel_and_a_line_for_each_thing_found() -> None:
    """6.12 comes after 6.1 and 6.2; what a run did not tell of is a dash; how the tests ended comes last."""
    other = {"kernel": "6.2.1", "tests": "1 passed"}
    assert kernels.table({"6.12": NEW, "6.1": OLD, "6.2@trixie": other}) == (
        "|  | 6.1.0-56 | 6.2.1 | 6.12.117 |\n"
        "| --- | --- | --- | --- |\n"
        "| hooks | clsact | – | tcx |\n"
        "| netkit | – | – | a\\|b |\n"
        "| tests | 7 passed | 1 passed | 6 passed, 1 failed |\n"
    )


def test_the_rest_of_the_page_stays() -> None:
    """The table goes where its marks are, whatever was there."""
    page = f"before\n{kernels.BEGIN}old\n{kernels.END}after\n"
    once = kernels.with_table(page, {"6.1": OLD})
    assert once == f"before\n{kernels.BEGIN}\n{kernels.table({'6.1': OLD})}\n{kernels.END}after\n"
    assert kernels.with_table(once, {"6.1": OLD}) == once


def test_a_page_without_a_place_is_not_written() -> None:
    """One mark is not enough."""
    for page in ("before\n", f"before\n{kernels.BEGIN}after\n"):
        with pytest.raises(ValueError, match="no place"):
            kernels.with_table(page, {"6.1": OLD})


def test_a_run_is_noted_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a run with a name: tests that somebody chose say nothing of a kernel."""
    for path, content in (("runs", json.dumps({"6.12": NEW})), ("page", kernels.BEGIN + kernels.END)):
        (tmp_path / path).write_text(content)
    (tmp_path / "junit").write_text(JUNIT.format(failures=1, errors=0))
    monkeypatch.setattr(kernels, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(kernels, "README", tmp_path / "page")
    assert kernels.main(str(tmp_path / "junit")) == 1
    assert json.loads((tmp_path / "runs").read_text()) == {"6.12": NEW}
    assert kernels.main(str(tmp_path / "junit"), "6.1") == 1
    assert list(json.loads((tmp_path / "runs").read_text())) == ["6.1", "6.12"]
    assert "6 passed, 1 failed, 2 not for it" in (tmp_path / "page").read_text()
    assert capsys.readouterr().out == "6 passed, 1 failed, 2 not for it\n" * 2


def test_the_table_of_the_readme_is_of_the_runs() -> None:
    """Nobody has written into it by hand."""
    page, runs = kernels.README.read_text(), json.loads(kernels.RUNS.read_text())
    assert kernels.with_table(page, runs) == page
