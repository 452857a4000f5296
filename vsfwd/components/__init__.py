"""Components of a host that ship with vsfwd, each a process of its own and a client of `io.vsfwd.Bus` like
anybody's: `context_agent` tells what guests say of themselves, `control_plane_agent` keeps controllers and
the certificate for them. `member` is what they share."""
