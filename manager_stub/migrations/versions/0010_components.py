"""What components of hosts say."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "component_messages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("host", sa.String, sa.ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("component", sa.String, nullable=False),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("component_messages_of", "component_messages", ["component", "host", "id"])
    op.create_index("component_messages_by_message", "component_messages", ["message", "host"], unique=True)
