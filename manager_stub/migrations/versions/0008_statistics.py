"""What hosts say that rules have counted."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "host_statistics",
        sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("begun_ms", sa.BigInteger, nullable=False),
        sa.Column("said_ms", sa.BigInteger, nullable=False),
        sa.Column("boots", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rule_statistics",
        sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("rule", sa.BigInteger, primary_key=True, autoincrement=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("packets", "bytes", "sessions", "hits", "last_hit_ms")
        ),
        *(
            sa.Column(f"said_{name}", sa.BigInteger, nullable=False)
            for name in ("packets", "bytes", "sessions")
        ),
    )
