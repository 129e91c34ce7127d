"""How far each load has read its source, so that the next reads only what is new."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per load of orders, written in its own transaction; the newest load_seq says where the next one begins.
create table audit.cursors (
    load_id uuid primary key references audit.loads on delete cascade,
    load_seq bigint not null,
    source text not null,
    entity text not null,
    mapping text not null,
    position text,
    through date not null,
    column_kinds jsonb not null default '{}'
);
create index on audit.cursors (source, entity, load_seq);
comment on column audit.cursors.mapping is
    'What the rows were read and judged by. Under another one they are all read again.';
comment on column audit.cursors.position is
    'All rows below this value of the cursor column were landed or refused; null: the next load reads every row.';
comment on column audit.cursors.through is 'The newest as-of date that was landed up to this position.';
comment on column audit.cursors.column_kinds is 'The kinds of values that each column of the source has held.';
""")
