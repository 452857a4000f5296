"""What is shipped, as files."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vsfwd

_WHERE = "from vsfwd.datapath.schema import SOURCE, schema; print(SOURCE, schema())"


def test_no_file_gives_its_owners_rights_to_others() -> None:
    """CVE-2024-33522: neither set-user-ID nor set-group-ID, nor writable for everybody."""
    root = Path(vsfwd.__file__).parents[1]
    shipped = [
        path for part in ("vsfwd", "bpf", "manager_stub", "vagrant") for path in (root / part).rglob("*")
    ]
    assert len(shipped) > 100
    assert not [path for path in (root / "run", *shipped) if path.stat().st_mode & 0o6002]


@pytest.mark.slow
def test_a_wheel_brings_the_programs_along(tmp_path: Path) -> None:
    """Every file of bpf/ is in it, and what is installed from it finds its own, as a checkout does."""
    root = Path(vsfwd.__file__).parents[1]
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site-packages"
    zipfile.ZipFile(wheel).extractall(installed)
    sources = [path.relative_to(root) for path in (root / "bpf").rglob("*") if path.is_file()]
    assert len(sources) > 20
    assert [(installed / path).read_bytes() for path in sources] == [
        (root / path).read_bytes() for path in sources
    ]
    found = {place: _found(place) for place in (root, installed)}
    assert {place: where for place, (where, _) in found.items()} == {
        place: str(place / "bpf") for place in found
    }
    assert found[root][1] == found[installed][1]


def _found(place: Path) -> list[str]:
    """Where a vsfwd that lies there has its programs, and their schema."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, "-c", _WHERE]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_linked_venv_is_refused_by_name(tmp_path: Path) -> None:
    """`./run` says what is wrong with it and leaves what it leads to alone."""
    root = Path(vsfwd.__file__).parents[1]
    for name in ("run", "pyproject.toml"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".venv").symlink_to("elsewhere")
    done = subprocess.run([tmp_path / "run", "setup"], capture_output=True, text=True)
    assert done.returncode == 1
    assert ".venv is a link to elsewhere" in done.stderr
    assert not list((tmp_path / "elsewhere").iterdir())
