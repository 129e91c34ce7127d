"""Clusters of accounts, and which products are recommended to whom."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per quarter whose clusters could be made. Its numbers are all there is of it: nothing else is loaded.
create table ml.cluster_fits (
    fit_id text primary key,
    quarter_start date not null unique,
    fitted_on date not null,
    accounts bigint not null,
    silhouette double precision not null,
    stability double precision not null,
    parameters jsonb not null,
    data_fingerprint text not null,
    code_version text not null,
    fitted_at timestamptz not null default clock_timestamp()
);
comment on column ml.cluster_fits.fitted_on is 'Date whose features were fitted on, the day before quarter_start.';
comment on column ml.cluster_fits.stability is
    'Mean adjusted Rand index between the clusters and those of bootstrap samples of the accounts; 1 is the same.';

-- One row per cluster of a fit.
create table ml.clusters (
    fit_id text not null references ml.cluster_fits,
    cluster_id integer not null,
    name text not null,
    description text not null,
    accounts bigint not null,
    share double precision not null,
    centroid jsonb not null,
    moved double precision,
    primary key (fit_id, cluster_id)
);
comment on column ml.clusters.name is 'What set the cluster apart when it was first found; it stays.';
comment on column ml.clusters.description is 'What sets it apart in this fit.';
comment on column ml.clusters.centroid is 'Scaled value of each feature, by its name.';
comment on column ml.clusters.moved is 'Distance from the centroid whose id it took over; null for a new id.';

-- One row per run: assigned by which fit, or why not.
create table ml.cluster_runs (
    run_id text primary key,
    as_of_date date not null,
    fit_id text references ml.cluster_fits,
    reason text,
    accounts bigint not null,
    assigned_at timestamptz not null default clock_timestamp(),
    constraint absence_has_a_reason check ((fit_id is null) = (reason is not null))
);

-- One row per run and account that has ordered.
create table ml.account_clusters (
    run_id text not null,
    as_of_date date not null,
    account_id text not null,
    cluster_id integer not null,
    distance double precision not null,
    primary key (run_id, account_id)
);
comment on column ml.account_clusters.distance is 'From the centroid: Euclidean, in scaled units.';

-- One row per run, cluster and measure.
create table ml.cluster_medians (
    run_id text not null,
    as_of_date date not null,
    cluster_id integer not null,
    measure text not null,
    median double precision,
    company_median double precision,
    primary key (run_id, cluster_id, measure)
);

-- One row per fit of the recommendations. A date's lists are those of the newest fit as of that date or before.
create table ml.recommendation_fits (
    fit_id text primary key,
    fitted_as_of date not null,
    method text not null,
    why text not null,
    accounts bigint not null,
    products bigint not null,
    purchases bigint not null,
    parameters jsonb not null,
    data_fingerprint text not null,
    code_version text not null,
    fitted_at timestamptz not null default clock_timestamp()
);
create index on ml.recommendation_fits (fitted_as_of);
comment on column ml.recommendation_fits.why is 'Why this method serves, in words.';
comment on column ml.recommendation_fits.purchases is 'Different pairs of account and product.';

-- One row per figure of a method on the purchases after a cutoff.
create table ml.recommendation_metrics (
    fit_id text not null references ml.recommendation_fits,
    cutoff date not null,
    method text not null,
    target text not null check (target in ('new', 'any')),
    metric text not null,
    value double precision not null,
    low double precision,
    high double precision,
    accounts bigint not null,
    primary key (fit_id, cutoff, method, target, metric)
);
comment on column ml.recommendation_metrics.target is
    'new: products the account had not bought by the cutoff; any: all products, those bought before too.';
comment on column ml.recommendation_metrics.low is 'Lower end of the 95 % bootstrap interval; null where none was drawn.';

-- One row per fit, account and place.
create table ml.recommendations (
    fit_id text not null references ml.recommendation_fits,
    as_of_date date not null,
    account_id text not null,
    place smallint not null,
    product_id text not null,
    score double precision not null,
    reason text not null,
    method text not null,
    primary key (fit_id, account_id, place)
);

-- One row per fit, industry and place: what is recommended to who has bought nothing. '' is all industries together.
create table ml.popular_products (
    fit_id text not null references ml.recommendation_fits,
    as_of_date date not null,
    industry text not null,
    place smallint not null,
    product_id text not null,
    score double precision not null,
    reason text not null,
    primary key (fit_id, industry, place)
);

-- One row per run: whose lists it shows, or why none.
create table ml.recommendation_runs (
    run_id text primary key,
    as_of_date date not null,
    fit_id text references ml.recommendation_fits,
    reason text,
    constraint absence_has_a_reason check ((fit_id is null) = (reason is not null))
);
""")
