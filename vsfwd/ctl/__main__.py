"""`python -m vsfwd.ctl` is vsfwctl."""

from vsfwd.ctl import main

main()
