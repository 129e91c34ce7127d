"""Events: the step of a flow, properties, and columns that no mapping reads yet. Chained on 0013 in this branch."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table raw_files.events
    add column flow_step text,
    add column properties jsonb,
    add column extras jsonb;
comment on column raw_files.events.flow_step is
    'The step of a flow, such as that of a purchase, that the event is; null where it is none.';
comment on column raw_files.events.properties is
    'What else the source says of the event, as one JSON object; null where it is not mapped or says nothing.';
comment on column raw_files.events.extras is
    'Columns that came after the first load and that no expression reads. Not part of what an event says.';
""")
