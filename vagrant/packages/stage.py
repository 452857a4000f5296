"""Fills the trees of the three packages with what is made of the checkout's wheel:

    python -m vagrant.packages.stage WHEELS DEBIAN

Python packages to /usr/lib/vsfwd, in versions that no Debian has; programs that find them there, and nothing
of a user's or an administrator's own; manual pages and completions, from the programs themselves; our pages
to /usr/share/doc/vsfwd, in the folders they are in here, with links to what is in the packages only.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from typing import Final

from vsfwd.ctl.programs import SECTIONS

LIBRARY: Final = Path("usr/lib/vsfwd")
PAGES: Final = Path("usr/share/doc/vsfwd")
_COMPLETIONS: Final = {
    "bash": "bash-completion/completions/{}",
    "fish": "fish/vendor_completions.d/{}.fish",
    "zsh": "zsh/vendor-completions/_{}",
}
"""Where shells look, below /usr/share."""
_OF_PIP: Final = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")


@dataclass(frozen=True)
class Package:
    name: str
    programs: tuple[str, ...]
    folder: str
    """Of the wheel."""
    needs: frozenset[str] = frozenset()
    """What only it requires, of others."""


PACKAGES: Final = (
    Package("vsfwctl", ("vsfwctl",), "vsfwd"),
    Package(
        "vsfwd",
        ("vsfwd", "vsfw-context-agent", "vsfw-control-plane-agent"),
        "bpf",
        frozenset({"numpy", "pyroute2"}),
    ),
    Package(
        "vsfwd-manager",
        ("vsfw-manager",),
        "manager_stub",
        frozenset(
            {"alembic", "argon2-cffi", "fastapi", "google-re2", "psycopg[binary]", "sqlalchemy", "uvicorn"}
        ),
    ),
)
"""The first has what more than one needs; the others depend on it."""

FOLDERS: Final = tuple(package.folder for package in PACKAGES)
MORE_PAGES: Final = ("README.md", "vagrant/packages/README.md")
"""In no folder of a package; who installs a host needs them."""
_LINK: Final = re.compile(r"\[([^][]+)\]\(([^)\s]+)\)")

_PROGRAM: Final = """\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/{library}")

from {module} import {function}  # noqa: E402

{function}()
"""


def main(wheels: Path, debian: Path) -> None:
    base, *others = (debian / package.name for package in PACKAGES)
    _install(wheels, base, ["vsfwd"], "--no-deps")
    (info,) = (base / LIBRARY).glob("vsfwd-*.dist-info")
    wheel = PathDistribution(info)
    required = {requirement for text in wheel.requires or () if (requirement := _required(text))}
    shutil.rmtree(base / LIBRARY / "vagrant")
    _link_pages(base / LIBRARY)
    special = frozenset().union(*(package.needs for package in PACKAGES))
    assert special <= required, f"required no longer: {special - required}"
    _install(wheels, base, sorted(required - special))
    for package, tree in zip(PACKAGES[1:], others, strict=True):
        _install(wheels, tree, sorted(package.needs))
        _drop_what_is_in(base, tree)
        shutil.move(base / LIBRARY / package.folder, tree / LIBRARY)
    for name in MORE_PAGES:
        page = Path(name)
        _write(base / PAGES / page, linked(page.read_text(), page, Path()))
    programs = {entry.name: entry for entry in wheel.entry_points}
    assert sorted(programs) == sorted(name for package in PACKAGES for name in package.programs)
    library = os.pathsep.join(str(tree / LIBRARY) for tree in (base, *others))
    for package in PACKAGES:
        _move_pages(debian / package.name, package.folder)
        for name in package.programs:
            _program(debian / package.name, programs[name], library)


def _required(text: str) -> str | None:
    """The name, with extras, in a Requires-Dist that is not for development."""
    found = re.match(r"[\w.-]+(\[\w+\])?", text)
    return found[0].lower() if found and "extra ==" not in text else None


def _install(wheels: Path, tree: Path, names: list[str], *options: str) -> None:
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(wheels)]
    argv += ["--no-compile", "--upgrade", "--target", str(tree / LIBRARY), *options, *names]
    subprocess.run(argv, check=True)
    for path in (tree / LIBRARY / "bin", *(tree / LIBRARY).rglob("tests")):
        shutil.rmtree(path, ignore_errors=True)
    for info in (tree / LIBRARY).glob("*.dist-info"):
        for name in _OF_PIP:
            (info / name).unlink(missing_ok=True)


def _drop_what_is_in(base: Path, tree: Path) -> None:
    for path in sorted(_files(tree), reverse=True):
        if (base / path).exists():
            (tree / path).unlink()
    for directory in sorted((tree / LIBRARY).rglob("*"), reverse=True):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _link_pages(library: Path) -> None:
    for folder in FOLDERS:
        for page in (library / folder).rglob("*.md"):
            page.write_text(linked(page.read_text(), page.relative_to(library), library))


def linked(text: str, page: Path, library: Path) -> str:
    """A page whose links lead to pages, or to files in /usr/lib/vsfwd; of those to what no package has, the
    words stay. `library`: where the folders are."""

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        to = Path(os.path.normpath(page.parent / target.partition("#")[0]))
        if target.startswith("#") or "://" in target or str(to) in MORE_PAGES:
            return found[0]
        if to.parts[0] not in FOLDERS or not (library / to).exists():
            return words
        return found[0] if to.suffix == ".md" else f"[{words}](/{LIBRARY / to})"

    return _LINK.sub(link, text)


def _move_pages(tree: Path, folder: str) -> None:
    for page in (tree / LIBRARY / folder).rglob("*.md"):
        target = tree / PAGES / page.relative_to(tree / LIBRARY)
        target.parent.mkdir(parents=True, exist_ok=True)
        page.rename(target)


def _files(tree: Path) -> Iterator[Path]:
    return (path.relative_to(tree) for path in tree.rglob("*") if path.is_file())


def _program(tree: Path, entry: EntryPoint, library: str) -> None:
    text = _PROGRAM.format(library=LIBRARY, module=entry.module, function=entry.attr)
    _write(tree / "usr/bin" / entry.name, text, 0o755)
    variable = f"_{entry.name.replace('-', '_').upper()}_COMPLETE"
    here = f"from {entry.module} import {entry.attr} as main; main(prog_name={entry.name!r})"
    for shell, place in _COMPLETIONS.items():
        completion = _said(here, {"PYTHONPATH": library, variable: f"{shell}_source"})
        _write(tree / "usr/share" / place.format(entry.name), completion)
    manual = f"from vsfwd.ctl.manual import page; print(page({entry.name!r}), end='')"
    page, section = _said(manual, {"PYTHONPATH": library}), SECTIONS[entry.name]
    _write(tree / f"usr/share/man/man{section}/{entry.name}.{section}", page)


def _said(code: str, environment: dict[str, str]) -> str:
    """By the Python that will run the programs, with what they will have."""
    argv = ["/usr/bin/python3", "-B", "-c", code]
    done = subprocess.run(
        argv, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
