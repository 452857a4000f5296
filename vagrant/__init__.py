"""Everything that turns a bare Debian into a running system: see README.md beside this file."""
