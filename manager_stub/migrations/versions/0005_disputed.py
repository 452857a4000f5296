"""vNICs that a host claims and another has. The table is not made anew: that would empty the outbox, whose
rows go with their hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("disputed", sa.Text, nullable=False, server_default="[]"))
