"""Why packets are dropped, as a page, made of the enum of bpf/types.h and what is said there of each."""

import re
from typing import Final

from vsfwd.datapath.schema import SOURCE

_REASON: Final = re.compile(r"^\tREASON_(\w+), +/\* (.+) \*/$", re.MULTILINE)
HEADING: Final = """\
# Why a packet was dropped

Every packet that is dropped is counted at its vNIC under one of these; `vsfwctl stats` shows them. This page
is made from [../bpf/types.h](../bpf/types.h), by `./run reference`.

| reason | the packet |
| --- | --- |
"""


def page() -> str:
    enum = (SOURCE / "types.h").read_text().partition("enum reason {")[2].partition("};")[0]
    rows = [f"| `{name.lower()}` | {text} |\n" for name, text in _REASON.findall(enum) if name != "NONE"]
    return HEADING + "".join(rows)
