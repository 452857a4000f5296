"""The local socket: what vsfwd tells and takes (`interface`), who may connect (`server`), how to ask
(`client`)."""

from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/vsfwd/vsfwd.sock")
