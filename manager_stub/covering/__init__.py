"""Which rules leave others nothing to decide. Pure, over rules as hosts read them: what is found holds for
every packet, whoever is a member of what."""

from manager_stub.covering.fields import Sets, covering
from manager_stub.covering.needless import Covered, covered

__all__ = ["Covered", "Sets", "covered", "covering"]
