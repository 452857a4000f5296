"""What can go wrong between the daemon and the kernel."""


class DatapathError(Exception):
    """The kernel refused; the text names what was attempted on which object. What was enforced before still
    is."""
