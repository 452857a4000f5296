"""Enrolment tokens, and what hosts have been given. Hosts there are go on with their certificates; nobody
kept them, so they are not renewed, and the hosts are enrolled anew before they end."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "credentials",
        sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("enrolment", sa.Integer, nullable=False),
        sa.Column("certificate", sa.Text, nullable=False),
    )
