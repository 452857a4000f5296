"""The audit log of one user, without looking through that of all."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_index("changes_by_user", "changes", ["user", "id"])
