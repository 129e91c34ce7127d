"""How far every source was read, in one table: what audit.pulls held moves into audit.cursors."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table audit.cursors rename column mapping to asked;
alter table audit.cursors add column whole_on date;
comment on table audit.cursors is
    'How far a load has read its source, written in its transaction; the newest load_seq says where the next begins.';
comment on column audit.cursors.asked is
    'A fingerprint of what was read and how (section, system, fields). Under another one everything is read again.';
comment on column audit.cursors.position is
    'All below this value of the cursor was landed or refused; null: the next load reads everything.';
comment on column audit.cursors.whole_on is
    'As-of date of the last load that read the source as a whole, where one that has a position is read so now and then.';
""")
    # A load that was retracted, or that began between another one and its retraction, did not count in audit.pulls: here
    # its row says what the ones before it said.
    op.execute("""
insert into audit.cursors (load_id, load_seq, source, entity, asked, position, through)
with counted as (
    select pulls.*, loads.load_seq, loads.as_of_date, loads.status = 'loaded' and not exists (
        select from audit.loads as gone
        where gone.source = loads.source and gone.entity = loads.entity and gone.status = 'retracted'
        and gone.load_seq < loads.load_seq and gone.retracted_at > loads.started_at) as counts
    from audit.pulls as pulls inner join audit.loads as loads using (load_id)
)
select
    here.load_id, here.load_seq, here.source, here.entity, here.asked, reached.value,
    coalesce(reached.through, here.as_of_date)
from counted as here
left join lateral (
    select max(earlier.value) as value, max(earlier.as_of_date) as through from counted as earlier
    where earlier.source = here.source and earlier.entity = here.entity and earlier.asked = here.asked
    and earlier.counts and earlier.load_seq <= here.load_seq) as reached on true;
drop table audit.pulls;
""")
