"""Drift: what a model was trained on in bins, how far each run lies from it, and what became of earlier scores."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per fitted model and what of it is watched: its used features, and its out-of-time probabilities.
create table ml.training_bins (
    model_id text not null references ml.models,
    name text not null,
    edges double precision[] not null,
    counts bigint[] not null,
    accounts bigint not null,
    mean double precision,
    primary key (model_id, name)
);
comment on column ml.training_bins.name is 'A feature, or probability.';
comment on column ml.training_bins.edges is 'Upper ends of the bins, the end belonging to the bin; the last bin has none.';
comment on column ml.training_bins.counts is 'Rows of each bin, at the end those without a value.';
comment on column ml.training_bins.accounts is 'Different accounts among the rows: month-ends repeat them.';
comment on column ml.training_bins.mean is 'Mean of the known values; of probability the share of rows it came true for.';

-- One row per run, model, name and what it is compared with.
create table ml.drift (
    run_id text not null,
    model text not null,
    as_of_date date not null,
    model_id text not null references ml.models,
    subject text not null check (subject in ('feature', 'score')),
    name text not null,
    reference text not null check (reference in ('training', 'last_set')),
    reference_date date,
    accounts_then bigint,
    accounts_now bigint not null,
    psi double precision,
    psi_by_chance double precision,
    distance double precision,
    missing_then double precision,
    missing_now double precision not null,
    mean_then double precision,
    mean_now double precision,
    state text not null check (state in ('steady', 'moved', 'shifted', 'not_compared')),
    reason text,
    primary key (run_id, model, name, reference),
    constraint no_comparison_has_a_reason check (
        (state = 'not_compared') = (reason is not null) and (state = 'not_compared') = (psi is null)
    )
);
comment on column ml.drift.reference_date is 'Newest month-end of training, or the date of the last published set.';
comment on column ml.drift.psi is 'Population stability index; null where there is nothing to compare with.';
comment on column ml.drift.psi_by_chance is 'What the index exceeds in 1 % of cases though nothing moved.';
comment on column ml.drift.distance is 'Mean distance of the quantiles 0.05 to 0.95 of two sets of scores; null of others.';
comment on column ml.drift.missing_then is 'Share of rows without a value.';
comment on column ml.drift.mean_then is 'Mean of the known values; of the score in training the share it came true for.';

-- One row per published run, model and part of its accounts: part 0 is all of them, 1 to 10 equally many by probability.
create table ml.calibration_drift (
    run_id text not null,
    model text not null,
    part smallint not null check (part between 0 and 10),
    as_of_date date not null,
    model_id text not null references ml.models,
    definition text,
    horizon_days integer not null,
    measured_as_of date not null,
    accounts bigint not null,
    mean_probability double precision not null,
    observed_rate double precision not null,
    low double precision not null,
    high double precision not null,
    auc double precision,
    brier double precision,
    primary key (run_id, model, part)
);
comment on column ml.calibration_drift.as_of_date is 'Month-end that the scores were told on.';
comment on column ml.calibration_drift.measured_as_of is 'Date of the run that looked at what had happened since.';
comment on column ml.calibration_drift.low is 'Lower end of the 95 % Wilson interval of observed_rate.';
comment on column ml.calibration_drift.auc is 'Of part 0; null where all or none came true.';
""")
