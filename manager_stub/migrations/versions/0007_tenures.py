"""Whose vNICs and VMs are or were last, and who has claimed them. Of those that are plugged the register
knows it by their hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "tenures",
        sa.Column("what", sa.String, primary_key=True),
        sa.Column("hosts", sa.Text, nullable=False),
        sa.Column("left_ms", sa.BigInteger, nullable=False),
        sa.Column("raised", sa.Text, nullable=False),
    )
