"""The calls of a day, beside those of a burst: one budget per CRM organisation."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table sync.call_windows
    add column hours jsonb not null default '{}',
    add column daily_limit integer;
comment on column sync.call_windows.hours is 'Hour since 1970-01-01 UTC -> our calls in it, of the last day.';
comment on column sync.call_windows.daily_limit is
    'The calls a day allows the whole organisation, as it said last; null until it says.';
""")
