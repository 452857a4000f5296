"""What a VM takes along when it changes host, and how this host takes part in a move.

    kernel ──► state ──blob──► bytes ──sealed──► bytes for one host ··· bus, file or pipe ··· and back

`state` are the types, `blob` their form on the wire, `sealed` what keeps it from everybody else; these are
pure. `move` goes through the steps of a move on this host. What they say to each other and to the manager
is `protocol.migration`."""
