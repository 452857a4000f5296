"""Saved configurations, drafts, and publishes that wait to be confirmed. What there is becomes the first
saved configuration."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "configurations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("automatic", sa.Boolean, nullable=False),
        sa.Column("user", sa.String, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("change", sa.Integer, nullable=False),
    )
    op.create_table(
        "drafts",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("user", sa.String, nullable=False),
        sa.Column("modified_ms", sa.BigInteger, nullable=False),
        sa.Column("tree", sa.Text, nullable=False),
        sa.Column("revisions", sa.Text, nullable=False),
    )
    op.create_table(
        "windows",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user", sa.String, nullable=False),
        sa.Column("deadline_ms", sa.BigInteger, nullable=False),
        sa.Column("change", sa.Integer, nullable=False),
    )
    op.execute(
        'INSERT INTO configurations (display_name, automatic, "user", time_ms, change) '
        "SELECT 'before', FALSE, 'system', COALESCE(MAX(modified_ms), 0), "
        "(SELECT COALESCE(MAX(id), 0) FROM changes) FROM objects HAVING COUNT(*) > 0"
    )
