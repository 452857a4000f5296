"""vsfwctl, the command line. Each of its commands is a module here, `vsfwctl` has the root and those that ask
the daemon what is enforced; `shell` has what all of them share, `manager` what those do that ask the manager.

Nothing here is the daemon's: it asks over the local socket, or by REST (`vsfwd.rest`)."""

from vsfwd.ctl.vsfwctl import main

__all__ = ["main"]
