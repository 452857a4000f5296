"""Policies that say the same otherwise, so that no mixture of two of them says the same as well."""

from typing import Final

from tests.harness.prober import DROP, PASS, PORTS, RULES

VERSIONS: Final = 3
"""Two would put into each bank what it held before."""
ENDS: Final = "10.0.0.0/24,fd00::/64"


def version(number: int) -> list[str]:
    """Of three rules that a probe might fall under it falls under this one, and the others, for nobody, do
    the opposite. So with which rule it is from one version, and what that rule does from another, what must
    be dropped is delivered and what must pass is lost."""
    rules = []
    for kind, action, opposite in ((DROP, "drop", "allow"), (PASS, "allow", "drop")):
        for place in range(VERSIONS):
            nobody = f"198.51.100.{place},2001:db8::{place}"
            does, sources = (action, ENDS) if place == number else (opposite, nobody)
            rules.append(f"{does} from {sources} service udp/{PORTS[kind]}")
    return [*rules, *RULES]
