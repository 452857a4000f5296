"""vsfwd: the daemon of a distributed firewall, one on every host.

One line runs through this package, one module per arrow:

    AMQP body ──parse──► message ──apply──► desired state ──compile──► image ──diff──► plan ──apply──► maps
     broker      protocol/messages   policy/desired    policy/compile   image       reconciler   datapath/

From parse to diff everything is pure: no I/O, no clock, no await. `daemon` is the only place that knows all
parts.

Words: *section*, *rule*, *group*, *service*, *applied-to* (scope), *vNIC*, *generation* as in NSX. *In* is
towards the workload, *out* is from it; the kernel's ingress and egress appear in `datapath/attach.py` alone.
"""
