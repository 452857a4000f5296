"""vNICs that a host claims and another has."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("hosts") as hosts:
        hosts.add_column(sa.Column("disputed", sa.Text, nullable=False, server_default="[]"))
    with op.batch_alter_table("hosts") as hosts:
        hosts.alter_column("disputed", server_default=None)
