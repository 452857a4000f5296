"""The interfaces of the local socket in varlink's own language, for programs and people. Pure."""

import re
import sys
from inspect import cleandoc

from asyncvarlink import VarlinkInterface


def description(interface: type[VarlinkInterface]) -> str:
    """As varlink has it, which has what methods and errors say, and with what the types say of themselves."""
    types = vars(sys.modules[interface.__module__])

    def with_words(found: re.Match[str]) -> str:
        said = cleandoc(types[found[1]].__doc__ or "")
        if said.startswith(f"{found[1]}("):  # which dataclasses have without one of their own
            return found[0]
        return "".join(f"# {line}\n" for line in said.splitlines()) + found[0]

    return re.sub(r"^type (\w+)", with_words, interface.render_interface_description(), flags=re.M)
