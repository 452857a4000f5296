"""What is said of a kernel: what it lacks, and whether it is too old."""

import pytest

from vsfwd.datapath.kernel import WITHOUT, lacking, too_old


def test_what_is_not_there_is_lacking() -> None:
    """With its consequence."""
    assert lacking({"tcx": True, "jit": True}) == {}
    assert lacking({"tcx": False, "jit": True}) == {"tcx": WITHOUT["tcx"]}
    assert lacking(dict.fromkeys(WITHOUT, False)) == WITHOUT


@pytest.mark.parametrize("release", ["6.1.0-56-cloud-amd64", "6.12.117+deb13-amd64", "10.0", "6.1"])
def test_a_kernel_that_takes_the_programs_is_not_too_old(release: str) -> None:
    """If it refuses one all the same, its version is not why."""
    assert too_old(release) == ""


@pytest.mark.parametrize("release", ["5.10.0-32-cloud-amd64", "6.0.19", "5.14.0-427.el9.x86_64", "4"])
def test_a_kernel_that_is_too_old_is_named(release: str) -> None:
    """Behind what it said itself, with the version that is wanted."""
    assert too_old(release) == f"; Linux {release} is older than 6.1, the first that takes them"
