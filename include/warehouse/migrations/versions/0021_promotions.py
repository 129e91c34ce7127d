"""Which model is champion from which date on, with the figures and the reason; what a feature does to a model."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per decision; rows are added and never changed. Of the rule's for one date the newest counts.
create table ml.promotions (
    promotion_id bigint generated always as identity primary key,
    model text not null,
    as_of_date date not null,
    decided_by text not null check (decided_by in ('rule', 'person')),
    decision text not null check (decision in ('began', 'kept', 'promoted', 'rolled back')),
    champion_before text references ml.models,
    challenger text references ml.models,
    champion text not null references ml.models,
    metric text,
    champion_value double precision,
    challenger_value double precision,
    margin double precision,
    difference_low double precision,
    difference_high double precision,
    compared_from date,
    compared_to date,
    compared_rows bigint,
    reason text not null check (reason <> ''),
    decided_at timestamptz not null default clock_timestamp(),
    constraint a_comparison_is_whole check (
        num_nulls(metric, champion_value, challenger_value, margin, difference_low, difference_high, compared_from,
            compared_to, compared_rows) in (0, 9)
    )
);
create index on ml.promotions (model, as_of_date);
comment on column ml.promotions.as_of_date is 'The champion stands from this date on.';
comment on column ml.promotions.champion_before is
    'What the challenger was compared with, or a person replaced; null where the model had none it could be.';
comment on column ml.promotions.compared_from is
    'Oldest date both were compared on: neither was fitted on it, and its outcomes were known on as_of_date.';
comment on column ml.promotions.difference_low is
    'Lower end of the paired 95 % bootstrap interval over accounts of challenger less champion.';

-- One row per model, feature that it weighs most, and value of it.
create table ml.effects (
    model_id text not null references ml.models,
    feature text not null,
    value double precision not null,
    mean_probability double precision not null,
    primary key (model_id, feature, value)
);
comment on table ml.effects is
    'Partial dependence: the mean probability of the newest training date''s accounts if all had the value.';
""")
