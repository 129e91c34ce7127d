"""Models: the fitted artefacts, what each run scored with which, how good they are."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per fitted model. A date is scored by the newest one trained as of that date or before.
create table ml.models (
    model_id text primary key,
    model text not null,
    trained_as_of date not null,
    horizon_days integer not null,
    window_from date not null,
    window_to date not null,
    training_rows bigint not null,
    training_positives bigint not null,
    estimator text not null,
    parameters jsonb not null,
    features jsonb not null,
    data_fingerprint text not null,
    code_version text not null,
    artefact bytea not null,
    artefact_sha256 text not null,
    trained_at timestamptz not null default clock_timestamp()
);
create index on ml.models (model, trained_as_of);
comment on column ml.models.window_from is 'Oldest as-of date of the training frames.';
comment on column ml.models.window_to is 'Newest as-of date whose whole label window lay before trained_as_of.';

-- One row per run and model: scored with which fitted model, or why not.
create table ml.runs (
    run_id text not null,
    model text not null,
    as_of_date date not null,
    status text not null check (status in ('scored', 'absent')),
    model_id text references ml.models,
    reason text,
    accounts bigint not null,
    scored_at timestamptz not null default clock_timestamp(),
    primary key (run_id, model),
    constraint absence_has_a_reason check (
        (status = 'scored') = (model_id is not null) and (status = 'absent') = (reason is not null)
    )
);

-- One row per run, model and account.
create table ml.scores (
    run_id text not null,
    model text not null,
    account_id text not null,
    as_of_date date not null,
    model_id text not null references ml.models,
    probability numeric(7, 6) not null check (probability between 0 and 1),
    score_rank bigint not null,
    reason_1 text not null,
    reason_2 text not null,
    reason_3 text not null,
    primary key (run_id, model, account_id)
);
comment on column ml.scores.score_rank is '1 is the highest probability; ties by account_id.';

-- One row per metric of a model, or of what it is compared with, on one population.
create table ml.metrics (
    model_id text not null references ml.models,
    evaluated_as_of date not null,
    kind text not null check (kind in ('validation', 'evaluation')),
    population text not null,
    estimator text not null,
    metric text not null,
    value double precision not null,
    low double precision,
    high double precision,
    rows bigint not null,
    measured_at timestamptz not null default clock_timestamp(),
    primary key (model_id, evaluated_as_of, kind, population, estimator, metric)
);
comment on column ml.metrics.low is 'Lower end of the 95 % bootstrap interval; null where none was drawn.';

-- One row per feature of a fitted model.
create table ml.importances (
    model_id text not null references ml.models,
    feature text not null,
    importance double precision not null,
    primary key (model_id, feature)
);
comment on column ml.importances.importance is 'Mean absolute contribution to the log-odds over the newest training frame.';
""")
