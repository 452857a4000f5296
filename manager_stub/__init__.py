"""The manager of vsfwd: keeps the policy and the inventory, works out what each host needs, publishes it.

    REST body ──api──► objects (model) ──store──► SQLite, one transaction with ─┐
                           │                                                    │
                         groups ──► span ──► state wanted per host ──levels──► outbox ──publisher──► RabbitMQ
                                               ▲                                                        │
                                     vNICs on the host (bindings)  ◄── hello, applied, vnics ───────────┘

`model`, `catalogue`, `groups`, `span` and `levels` are pure. One thread owns everything: a request, a
report of a host and a publish never interleave inside a change.
"""
