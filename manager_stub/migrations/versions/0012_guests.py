"""What context agents tell of guests."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "guests",
        sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("vm", sa.String, primary_key=True),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("guest", sa.Text, nullable=False),
    )
