"""Identity: a schema for who is whose account, and what people have decided of it."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create schema if not exists identity")
    op.execute("""
-- What people have decided about identities, append-only: a decision is taken back by another row, that undoes it.
create table identity.decisions (
    decision_id bigint generated always as identity primary key,
    action text not null check (action in ('link', 'separate', 'merge', 'exclude', 'undo')),
    source_system text,
    source_account_id text,
    account_id text,
    into_account_id text,
    effective_from date,
    undoes bigint unique references identity.decisions,
    why text not null check (why <> ''),
    decided_by text not null,
    decided_at timestamptz not null default clock_timestamp(),
    constraint decision_is_whole check (case action
        when 'link' then num_nulls(source_system, source_account_id, account_id) = 0
        when 'separate' then num_nulls(source_system, source_account_id) = 0
        when 'merge' then num_nulls(account_id, into_account_id, effective_from) = 0 and account_id <> into_account_id
        when 'exclude' then account_id is not null
        else undoes is not null
    end),
    constraint only_undo_undoes check ((action = 'undo') = (undoes is not null))
);
comment on column identity.decisions.effective_from is
    'First day the decision is true of; null: it was always true, and what stood before was a mistake.';

create view identity.decisions_in_force as
select decision_id, action, source_system, source_account_id, account_id, into_account_id, effective_from, why,
       decided_by, decided_at
from identity.decisions as decision
where action <> 'undo'
  and not exists (select from identity.decisions as undoing where undoing.undoes = decision.decision_id);
""")
    # The crosswalk moves here from intermediate and is made anew; the old one goes where this role may drop it.
    op.execute("""
do $$ begin
    if exists (
        select from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where nspname = 'intermediate' and relname = 'int_account_crosswalk'
          and pg_has_role(current_user, relowner, 'usage')
    ) then
        drop table intermediate.int_account_crosswalk cascade;
    end if;
end $$;
""")
