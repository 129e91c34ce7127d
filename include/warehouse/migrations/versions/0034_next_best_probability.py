"""How likely the next best category is bought stands beside it."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table ml.scores
    add column next_best_probability numeric(7, 6);
comment on column ml.scores.next_best_probability is
    'How likely next_best is bought in the horizon; null without one, and where the past tells too little of it.';
""")
