"""Early drops as local clients ask for them: which thread does what."""

import threading
from typing import cast

import pytest

import vsfwd.ipc.interface as api
from vsfwd.applythread import ApplyThread
from vsfwd.datapath import Datapath, DatapathError
from vsfwd.early import EarlyDrops


class Compiling:
    """A datapath whose early drops say by which thread they are compiled and attached."""

    def __init__(self, refusal: str = "") -> None:
        self.threads: dict[str, int] = {}
        self.refusal = refusal

    @property
    def early(self) -> "Compiling":
        return self

    def compile(self) -> None:
        self.threads["compile"] = threading.get_ident()
        if self.refusal:
            raise DatapathError(self.refusal)

    def attach(self, *_: object) -> None:
        self.threads["attach"] = threading.get_ident()


async def drop(datapath: Compiling) -> set[int]:
    """Attach one; the threads that are none of the compiler's."""
    apply_thread = ApplyThread()
    try:
        busy = {threading.get_ident(), await apply_thread(threading.get_ident)}
        await EarlyDrops(cast(Datapath, datapath), apply_thread).attach("eth0", ["10.0.0.1"], 0, 0, 0)
        return busy
    finally:
        apply_thread.finish(lambda: None)


async def test_policy_does_not_wait_for_the_compiler() -> None:
    """It has a thread of its own; the apply thread gets the program when it is there."""
    datapath = Compiling()
    busy = await drop(datapath)
    assert list(datapath.threads) == ["compile", "attach"]
    assert datapath.threads["compile"] not in busy
    assert datapath.threads["attach"] in busy


async def test_what_the_compiler_refuses_is_refused() -> None:
    """Nothing is attached."""
    datapath = Compiling("compile early: no compiler")
    with pytest.raises(api.Refused):
        await drop(datapath)
    assert list(datapath.threads) == ["compile"]
