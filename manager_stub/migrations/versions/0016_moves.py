"""Moves of VMs from host to host."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "moves",
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
