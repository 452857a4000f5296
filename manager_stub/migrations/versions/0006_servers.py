"""From which server a lease came. Of those that are known already nobody can tell."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("claims", sa.Column("server", sa.String, nullable=False, server_default=""))
