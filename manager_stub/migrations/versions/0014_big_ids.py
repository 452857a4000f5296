"""Ids that hosts use up, beyond 2^31: of changes and of what components say. SQLite's are as big already."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column in (
        ("changes", "id"),
        ("component_messages", "id"),
        ("configurations", "change"),
        ("windows", "change"),
    ):
        op.alter_column(table, column, type_=sa.BigInteger, existing_type=sa.Integer, existing_nullable=False)
    for table in ("changes", "component_messages"):
        op.execute(f"ALTER SEQUENCE {table}_id_seq AS bigint")
