"""The rights that systemd gives vsfwd, for every vsfwd of a lab or a test: what needs more does not work
there."""

import re
from pathlib import Path
from typing import Final

_UNIT: Final = (Path(__file__).parents[2] / "vsfwd/systemd/vsfwd.service").read_text()
CAPABILITIES: Final = re.findall(r"\bCAP_\w+", re.findall(r"^CapabilityBoundingSet=(.*)", _UNIT, re.M)[0])


def with_rights(argv: list[str]) -> list[str]:
    """The same, as root without the rest of root's capabilities."""
    bounds = ",".join(["-all", *(f"+{each.removeprefix('CAP_').lower()}" for each in CAPABILITIES)])
    return ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", "--no-new-privs", *argv]
