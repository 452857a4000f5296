"""What holds for every test."""

import signal

# A run started in the background of a script inherits SIGINT as ignored, and so would every process that a
# test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
