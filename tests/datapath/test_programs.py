"""Programs that are pinned are opened again as they are; what lies in their maps, types.h says."""

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from tests.harness.datapath import Host, passed
from tests.harness.packets import IPV4, udp
from vsfwd.datapath import DatapathError, bpf
from vsfwd.datapath.build import module_of
from vsfwd.datapath.schema import MAPS, SOURCE, Declarations, layouts

pytestmark = pytest.mark.slow
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def test_a_new_daemon_of_the_same_text_has_the_same_programs(host: Host) -> None:
    """No program is loaded, so what is attached stays as it is; what they log is heard."""
    host.restart()  # others may have unpinned them
    here = host.port("here")
    host.install(["allow logged"], vnics={"here": "10.0.0.1"})
    before = bpf.object_id(host.datapath.vnic_in)
    host.restart()
    assert not host.datapath._programs.loaded
    assert bpf.object_id(host.datapath.vnic_in) == before
    seen = here.receive(udp(IPV4.peer, IPV4.here))
    assert (seen, [event.rule_id for event in seen.events]) == (passed(1, new=True), [1])


def test_pinned_programs_need_no_compiler(host: Host) -> None:
    """bcc, and so LLVM, is not even imported."""
    code = (
        "import sys; from pathlib import Path; from vsfwd.datapath import Datapath\n"
        "Datapath.open(Path(sys.argv[1])).close()\n"
        "print([name for name in sys.modules if name.startswith('bcc')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(host.pins)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_what_a_build_that_was_killed_has_left_is_no_program(host: Host) -> None:
    """Programs bear their name when all of them are pinned."""
    host.unpin()
    unfinished = host.datapath._programs.pins / "programs-unfinished"
    unfinished.mkdir()
    bpf.pin(host.datapath.vnic_in, unfinished / "vnic_in")
    host.restart()
    assert host.datapath._programs.loaded
    assert not unfinished.exists()


def test_a_program_whose_pin_somebody_removed_is_built_again(host: Host) -> None:
    """With all the others, as on a first start; the next one finds them whole."""
    (host.datapath._programs.directory / "vnic_out_again").unlink()
    host.restart()
    assert host.datapath._programs.loaded
    host.restart()
    assert not host.datapath._programs.loaded


def compiled(type_: Any) -> tuple[list[str], str]:
    """Names, and what a `struct.Struct` of them would be, as bcc has them."""
    members = getattr(type_, "_fields_", [("value", type_)])
    format_ = "".join(
        CODES[ctypes.sizeof(of)] if issubclass(of, ctypes._SimpleCData) else f"{ctypes.sizeof(of)}s"
        for _, of in members
    )
    return [name for name, _ in members], f"<{format_}"


def test_every_map_has_the_layout_that_the_compiler_says(host: Host) -> None:
    """Names, order and sizes, of all that the daemon reads or writes; not what only programs know."""
    with module_of((SOURCE / "dfw.c").read_text()) as module:
        for table in MAPS.keys() - {"scratches", "reply_draft"}:
            known = module[table.encode()]
            # Of a per-CPU map, bcc's Leaf is one value for each CPU and sLeaf the one in C.
            types = known.Key, getattr(known, "sLeaf", known.Leaf)
            for read, type_ in zip(layouts(table.removesuffix("_template")), types, strict=True):
                assert (read.names, read._struct.format) == compiled(type_), table
                assert read.size == ctypes.sizeof(type_), table


def test_padding_that_is_not_written_out_is_refused() -> None:
    """A struct that C would lay out in another way than it stands there."""
    for fields in ("u8 first; u32 second;", "u32 first; u8 second;"):
        with pytest.raises(DatapathError, match="padding"):
            Declarations(f"struct odd {{\n{fields}\n}};").layout("struct odd")


def test_a_declaration_that_is_not_understood_is_refused() -> None:
    """Not passed over: the fields behind it would be read from the wrong place."""
    with pytest.raises(DatapathError, match="u32 bit:1"):
        Declarations("struct odd {\n\tu32 bit:1;\n};").layout("struct odd")
