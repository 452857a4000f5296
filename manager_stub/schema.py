"""The tables of the manager's database. A change here needs a migration beside it."""

import sqlalchemy as sa

metadata = sa.MetaData()

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""What counts without end. SQLite's integers are as big, and only its INTEGER gives ids."""

objects = sa.Table(
    "objects",
    metadata,
    sa.Column("path", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False, index=True),
    sa.Column("unique_id", sa.String, nullable=False, unique=True),
    # A rule's id, a segment's or section's number: given once, never given again.
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("system_owned", sa.Boolean, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("modified_ms", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)
numbers = sa.Table(
    "numbers",
    metadata,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("last", sa.Integer, nullable=False),
)
hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("display_name", sa.String, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("sent_generation", sa.BigInteger, nullable=False),
    sa.Column("sent_digest", sa.String, nullable=False),
    sa.Column("applied_epoch", sa.BigInteger, nullable=False),
    sa.Column("applied_generation", sa.BigInteger, nullable=False),
    sa.Column("applied_digest", sa.String, nullable=False),
    sa.Column("refusals", sa.Text, nullable=False),
    sa.Column("bindings", sa.Text, nullable=False),
    sa.Column("vsfwd", sa.String, nullable=False),
    sa.Column("last_seen_ms", sa.BigInteger, nullable=False),
    sa.Column("disputed", sa.Text, nullable=False, server_default="[]"),
)
# The message a host has not yet said it applied; at most one a host.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("base", sa.BigInteger, nullable=False),
    sa.Column("base_digest", sa.String, nullable=False),
    sa.Column("header", sa.LargeBinary, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("vnic", sa.String, primary_key=True),
    sa.Column("address", sa.String, primary_key=True),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("first_seen_ms", sa.BigInteger, nullable=False),
    sa.Column("approved", sa.Boolean, nullable=False),
    sa.Column("server", sa.String, nullable=False, server_default=""),
)
# Whose a vNIC, or a VM (by its path), is or was last, and who had it before; since when others claim it.
tenures = sa.Table(
    "tenures",
    metadata,
    sa.Column("what", sa.String, primary_key=True),
    sa.Column("hosts", sa.Text, nullable=False),
    sa.Column("left_ms", sa.BigInteger, nullable=False),
    sa.Column("raised", sa.Text, nullable=False),
)
# What hosts have said of their rules: since when they do, and up to when (boot ids, the time since the last).
host_statistics = sa.Table(
    "host_statistics",
    metadata,
    sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("begun_ms", sa.BigInteger, nullable=False),
    sa.Column("said_ms", sa.BigInteger, nullable=False),
    sa.Column("boots", sa.Text, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)
# What a rule, by its number, has counted on a host in all; and what the host said last, from its own start.
rule_statistics = sa.Table(
    "rule_statistics",
    metadata,
    sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("rule", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("packets", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sessions", sa.BigInteger, nullable=False),
    sa.Column("hits", sa.BigInteger, nullable=False),
    sa.Column("last_hit_ms", sa.BigInteger, nullable=False),
    sa.Column("said_packets", sa.BigInteger, nullable=False),
    sa.Column("said_bytes", sa.BigInteger, nullable=False),
    sa.Column("said_sessions", sa.BigInteger, nullable=False),
)
users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("password_hash", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
)
# API tokens: only a hash of each is kept.
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    sa.Column("display_name", sa.String, nullable=False),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
)
# Enrolment tokens: only a hash of each is kept. `key`: the hash of the public key that was enrolled with it.
enrolment_tokens = sa.Table(
    "enrolment_tokens",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("display_name", sa.String, nullable=False),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
)
credentials = sa.Table(
    "credentials",
    metadata,
    sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("enrolment", sa.Integer, nullable=False),
    sa.Column("certificate", sa.Text, nullable=False),
)
# The audit log: what a change made of each object. Rows are added, and nothing else is ever done to them.
changes = sa.Table(
    "changes",
    metadata,
    sa.Column("id", _BIG, primary_key=True),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False, index=True),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
    sa.Index("changes_by_user", "user", "id"),
)
# What components of hosts have said: the newest of each.
component_messages = sa.Table(
    "component_messages",
    metadata,
    sa.Column("id", _BIG, primary_key=True),
    sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("component", sa.String, nullable=False),
    sa.Column("topic", sa.String, nullable=False),
    sa.Column("message", sa.String, nullable=False),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("component_messages_of", "component", "host", "id"),
    sa.Index("component_messages_by_message", "message", "host", unique=True),
)
# What context agents tell of guests.
guests = sa.Table(
    "guests",
    metadata,
    sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("vm", sa.String, primary_key=True),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("guest", sa.Text, nullable=False),
)
# The list that control-plane agents are given; at most one row.
controllers = sa.Table(
    "controllers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
# Saved configurations: each is the policy as it was after a change; what it was, the changes since tell.
configurations = sa.Table(
    "configurations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("display_name", sa.String, nullable=False),
    sa.Column("automatic", sa.Boolean, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("change", _BIG, nullable=False),
)
drafts = sa.Table(
    "drafts",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("display_name", sa.String, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("modified_ms", sa.BigInteger, nullable=False),
    # The tree of its objects; and of which revision each was when it came into the draft.
    sa.Column("tree", sa.Text, nullable=False),
    sa.Column("revisions", sa.Text, nullable=False),
)
# What waits to be confirmed: at most one row, and what follows `change` is undone at the deadline.
windows = sa.Table(
    "windows",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("deadline_ms", sa.BigInteger, nullable=False),
    sa.Column("change", _BIG, nullable=False),
)
# VMs that move from host to host, and the last that did.
moves = sa.Table(
    "moves",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("vm", sa.String, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("vnics", sa.Text, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("begun_ms", sa.BigInteger, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("flows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("pulled", sa.Boolean, nullable=False),
)
# Which manager leads: one row. `beat` grows while it does.
leaders = sa.Table(
    "leaders",
    metadata,
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("url", sa.String, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
