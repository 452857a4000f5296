"""Files that are there whole or not at all, and for their owner alone."""

from pathlib import Path

from vsfwd import files


def test_a_file_that_was_left_lends_its_mode_to_none(tmp_path: Path) -> None:
    """What a crash left on the way, or somebody made there, may be open to others: what is written then may
    be a private key."""
    left = tmp_path / "key.new"
    left.write_bytes(b"long ago and longer")
    left.chmod(0o666)
    files.replace(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_link_that_was_put_there_leads_nowhere(tmp_path: Path) -> None:
    """Root writes into directories of the user that vsfwd runs as."""
    others = tmp_path / "shadow"
    others.write_bytes(b"root's")
    others.chmod(0o644)
    (tmp_path / "key.new").symlink_to(others)
    files.replace(tmp_path / "key", b"secret")
    assert (others.read_bytes(), others.stat().st_mode & 0o777) == (b"root's", 0o644)
    assert (tmp_path / "key").read_bytes() == b"secret"
