"""Several models: what each run's model foretells and how good it proved, expected value and next best category."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table ml.runs
    add column definition text,
    add column horizon_days integer,
    add column trained_as_of date,
    add column base_rate numeric(7, 6),
    add column auc numeric(5, 4);
comment on column ml.runs.definition is 'What the model foretells (ml/targets.py); null before there were several.';
comment on column ml.runs.base_rate is 'How often it came true among the rows the model was trained on.';
comment on column ml.runs.auc is 'Mean AUC of the model''s validation dates, all accounts.';
alter table ml.scores
    add column expected_value numeric(18, 2),
    add column next_best text;
comment on column ml.scores.expected_value is
    'Net revenue expected in the horizon, reporting currency; null where the model tells none.';
comment on column ml.scores.next_best is
    'The category the account does not buy that is likeliest; null where the model tells none.';
-- One row per model and day whose training found nothing that holds later: it is not tried again for that day.
create table ml.refusals (
    model text not null,
    trained_as_of date not null,
    reason text not null check (reason <> ''),
    refused_at timestamptz not null default clock_timestamp(),
    primary key (model, trained_as_of)
);
""")
