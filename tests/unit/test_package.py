"""What is shipped, as files."""

from pathlib import Path

import vsfwd


def test_no_file_gives_its_owners_rights_to_others() -> None:
    """CVE-2024-33522: neither set-user-ID nor set-group-ID, nor writable for everybody."""
    root = Path(vsfwd.__file__).parents[1]
    shipped = [
        path for part in ("vsfwd", "bpf", "manager_stub", "vagrant") for path in (root / part).rglob("*")
    ]
    assert len(shipped) > 100
    assert not [path for path in (root / "run", *shipped) if path.stat().st_mode & 0o6002]
