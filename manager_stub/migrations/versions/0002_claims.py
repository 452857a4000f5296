"""Addresses that vNICs were seen with."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("vnic", sa.String, primary_key=True),
        sa.Column("address", sa.String, primary_key=True),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("first_seen_ms", sa.BigInteger, nullable=False),
        sa.Column("approved", sa.Boolean, nullable=False),
    )
