"""A host compiles a text once. What it has kept is believed only if it must be its own, and whole."""

import os
import subprocess
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from vsfwd.datapath import DatapathError, bpf, compiled
from vsfwd.datapath.compiled import KEPT, Compiled

PROGRAMS = Compiled("GPL", {"flows": bpf.Shape(2, 4, 8, 1, 0)}, {"packet": bytes(16)})
NOBODY = 65534


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a compiler was asked for. This one makes the same of everything."""
    asked: list[str] = []

    def run(*_: object, input: bytes, **__: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(input.decode())
        return subprocess.CompletedProcess([], 0, compiled.msgspec.msgpack.encode(PROGRAMS))

    monkeypatch.setattr(compiled.subprocess, "run", run)
    return asked


def test_a_text_is_compiled_once(tmp_path: Path, texts: list[str]) -> None:
    """And another text by itself."""
    for text in ("one", "one", "two", "one", "two"):
        assert compiled.compiled(text, "datapath", tmp_path / "cache") == PROGRAMS
    assert texts == ["one", "two"]


@pytest.mark.parametrize("changed", ["a header", "the compiler"])
def test_what_is_made_of_something_else_is_compiled_again(
    tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """The same text includes another header, or another bcc compiles it."""
    made_of = {"a header": tmp_path / "bpf" / "flow.h", "the compiler": tmp_path / "bcc" / "version.py"}
    for path in made_of.values():
        path.parent.mkdir()
        path.write_text("old")
    monkeypatch.setattr(compiled, "SOURCE", tmp_path / "bpf")
    bcc = ModuleSpec("bcc", None)
    bcc.submodule_search_locations = [str(tmp_path / "bcc")]
    monkeypatch.setattr(compiled, "find_spec", lambda _: bcc)
    for content in ("old", "new", "new"):
        made_of[changed].write_text(content)
        compiled.compiled("one", "datapath", tmp_path / "cache")
    assert texts == ["one", "one"]


def test_what_is_kept_does_not_grow(tmp_path: Path, texts: list[str]) -> None:
    """A few versions of each name, those used last."""
    for number in range(2 * KEPT):
        for name in ("datapath", "early"):
            compiled.compiled(f"version {number}", name, tmp_path)
            compiled.compiled("version 0", name, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * KEPT
    texts.clear()
    for number in 0, 2 * KEPT - 1:
        compiled.compiled(f"version {number}", "datapath", tmp_path)
    assert texts == []


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


@pytest.mark.parametrize(
    "change",
    [
        spoil,
        cut_off,
        Path.unlink,
        link,
        lambda path: path.write_bytes(b""),
        lambda path: path.chmod(0o620),
        lambda path: path.chmod(0o602),
        lambda path: os.chown(path, NOBODY, -1),
    ],
    ids=["a bit", "cut off", "gone", "a link", "empty", "its group's too", "everybody's", "somebody else's"],
)
def test_what_is_not_believed_is_compiled_again(
    tmp_path: Path, texts: list[str], change: Callable[[Path], object]
) -> None:
    """And is in its place as it should be afterwards."""
    compiled.compiled("one", "datapath", tmp_path)
    (path,) = tmp_path.iterdir()
    change(path)
    assert Compiled.kept(path) is None
    assert compiled.compiled("one", "datapath", tmp_path) == PROGRAMS
    assert (texts, Compiled.kept(path)) == (["one", "one"], PROGRAMS)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (os.geteuid(), 0o600)


def test_without_room_for_it_the_programs_are_there_all_the_same(tmp_path: Path, texts: list[str]) -> None:
    """The next start compiles again."""
    no_directory = tmp_path / "file"
    no_directory.touch()
    for _ in range(2):
        assert compiled.compiled("one", "datapath", no_directory) == PROGRAMS
    assert texts == ["one", "one"]


@pytest.mark.slow
def test_a_text_that_does_not_compile_is_not_kept(tmp_path: Path) -> None:
    """It is refused, by its name."""
    with pytest.raises(DatapathError, match="compile datapath"):
        compiled.compiled("no C", "datapath", tmp_path)
    assert list(tmp_path.iterdir()) == []
