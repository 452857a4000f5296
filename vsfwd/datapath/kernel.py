"""What not every kernel has that takes the programs, and what becomes of a host without it.

A feature is asked of the kernel and not concluded from its version: distributions add to old ones. Without
any of these the datapath does what stands here instead, and says so. What it cannot do without is a kernel
that takes the programs: on any other the daemon does not start, and what was in force stays."""

import re
from collections.abc import Mapping
from typing import Final

OLDEST: Final = (6, 1)
"""Linux whose verifier takes the programs: README.md, "Kernels"."""
WITHOUT: Final = {
    "tcx": "the programs are filters of a clsact qdisc, and another tool's filter may stay before them",
    "jit": "the programs are interpreted, many times slower: see the sysctl net.core.bpf_jit_enable",
}


def lacking(has: Mapping[str, bool]) -> dict[str, str]:
    """By feature that this kernel lacks, what that means."""
    return {feature: WITHOUT[feature] for feature, there in has.items() if not there}


def too_old(release: str) -> str:
    """For the end of what a kernel says that refuses a program; empty if its version is no reason."""
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    oldest = ".".join(map(str, OLDEST))
    return f"; Linux {release} is older than {oldest}, the first that takes them" if version < OLDEST else ""
