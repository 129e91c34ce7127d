"""Each way in which scores, drift, clusters or lists of a run can be wrong contradicts what the gate expects of them.

The queries of expectations/scores.yml are asked of a small run that is right, and of the same run with one thing wrong.
That a contradiction stops the chain, is written down and shown is in test_scores_gate.py.
"""

import shutil
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest

from include.quality.limits import limits
from include.quality.suites import EXPECTATIONS, GateSuite, load_suite
from ml.targets import MODELS
from tests.conftest import Warehouse
from tests.ml.world import make_marts, order_days

DAY = date(2026, 3, 10)
VALUES = {
    "as_of": DAY,
    "run_id": "now",
    "previous_run_id": "before",
    "timezone": "UTC",
    "currency": "CNY",
    "load_ids": [],
}
RUN = """
    create table marts.account_purchases
        (account_id text, product_id text, order_date date, valid_from_date date, valid_until_date date);
    insert into marts.account_features (as_of_date, account_id, categories_total, net_revenue_90d)
        select day, 'A' || number, (number < 40)::int, (number <> 39)::int
        from generate_series(11, 40) as number, (values (date '2026-03-10'), ('2026-03-09')) as days (day);
    insert into marts.lapse_features (as_of_date, account_id, is_due)
        select day, 'A' || number, number < 25
        from generate_series(21, 28) as number, (values (date '2026-03-10'), ('2026-03-09')) as days (day);
    insert into marts.trial_features (as_of_date, account_id)
        select day, 'T' || number
        from generate_series(11, 15) as number, (values (date '2026-03-10'), ('2026-03-09')) as days (day);
    insert into marts.account_purchases values
        ('A11', 'bought too long ago', '2026-02-07', null, null), ('A11', 'bought since', '2026-03-10', null, null),
        ('A11', 'bought by another', '2026-03-01', null, '2026-03-09'),
        ('A11', 'bought before it was A11', '2026-03-01', '2026-03-10', null), ('A11', 'owned', '2026-03-09', null, null);

    insert into ml.models
        select 'm-' || model, model, '2026-03-09', 90, '2025-01-31', '2025-11-30', 9, 3, 'e', '{}', '[]', 'f', 'v', '', 's'
        from unnest(array['churn', 'lapse', 'repurchase', 'upsell', 'trial']) as model;
    insert into ml.runs (run_id, model, as_of_date, status, model_id, accounts, definition, base_rate)
        select run_id, model, day, 'scored', 'm-' || model, accounts, definition, 0.3
        from (values ('churn', 22, 'no order'), ('lapse', 4, 'contract lapse'), ('repurchase', 30, 'an order'),
              ('upsell', 29, 'new category'), ('trial', 5, 'first order or contract'))
                as of_model (model, accounts, definition),
            (values ('now', date '2026-03-10'), ('before', '2026-03-03')) as runs (run_id, day);
    insert into ml.scores
        select run_id, model, account_id, day, 'm-' || model, round(1.0 - place / 31.0, 6), place, 'one', 'two', 'three',
               case model when 'repurchase' then place end, case model when 'upsell' then 'tools' end,
               case model when 'upsell' then 0.01 end
        from (
            select run.*, told.account_id,
                   row_number() over (partition by run.run_id, run.model order by told.account_id) as place
            from (select run_id, model, as_of_date as day from ml.runs) as run
            join (select account_id, unnest(array['repurchase', 'upsell', 'churn']) as model from marts.account_features
                  where as_of_date = '2026-03-10'
                  union all select account_id, 'lapse' from marts.lapse_features where is_due and as_of_date = '2026-03-10'
                  union all select account_id, 'trial' from marts.trial_features where as_of_date = '2026-03-10')
                as told using (model)
            where not (model = 'upsell' and account_id = 'A40')
              and not (model = 'churn' and account_id between 'A21' and 'A28')
        ) as placed;
    insert into ml.drift
        select 'now', model, '2026-03-10', 'm-' || model, subject, name, reference, '2026-03-03', 30, 30, 0.01, 0.02,
               0.01, 0, 0, 0.5, 0.5, 'steady', null
        from ml.models, (values ('score', 'probability', 'training'), ('score', 'probability', 'last_set'),
                         ('feature', 'orders_90d', 'training')) as of_name (subject, name, reference);
    insert into ml.calibration_drift
        select run_id, model, part, day, 'm-' || model, 'd', 90, measured, 30, 0.2, 0.4, 0, 1, 0.7, 0.2,
               case part when 0 then error end
        from ml.models, generate_series(0, 1) as part,
            (values ('older', date '2025-10-31', date '2026-01-31', 0.3), ('newest', '2025-11-30', '2026-03-10', 0.02),
                    ('later', '2025-12-31', '2026-03-31', 0.3)) as measured (run_id, day, measured, error);

    insert into ml.cluster_fits values ('f1', '2026-01-01', '2026-03-09', 30, 1, 1, '{}', 'f', 'v'),
        ('f0', '2025-10-01', '2025-09-30', 30, 1, 1, '{}', 'f', 'v');
    insert into ml.clusters select fit_id, cluster_id, 'n', 'd', 15, 0.5, '{}'
        from (values ('f1', 1), ('f1', 2), ('f0', 9)) as one (fit_id, cluster_id);
    insert into ml.cluster_runs values ('now', '2026-03-10', 'f1', null, 30);
    insert into ml.account_clusters select 'now', as_of_date, account_id, 1, 0.5
        from marts.account_features where as_of_date = '2026-03-10';
    insert into ml.recommendation_fits values ('r1', '2026-03-09', 'bm25', 'w', 2, 4, 9, '{"history_days": 30}', 'f', 'v');
    insert into ml.recommendation_runs values ('now', '2026-03-10', 'r1', null);
    insert into ml.recommendations select 'r1', '2026-03-09', 'A11', place, product, 0.5, 'because', 'bm25'
        from unnest(array['bought too long ago', 'bought since', 'bought by another', 'bought before it was A11'])
            with ordinality as listed (product, place);
"""


@pytest.fixture(scope="module")
def run(module_warehouse: Warehouse) -> Warehouse:
    """A run that is right: 30 accounts, 8 of them under a contract, 4 of these due; 5 trials; every model has scored.

    What the database itself refuses is let in: the gate does not lean on it.
    """
    make_marts(order_days(1), [])
    module_warehouse.rows(RUN)
    module_warehouse.rows("alter table ml.scores drop constraint scores_probability_check")
    return module_warehouse


def contradicted(warehouse: Warehouse, suite: GateSuite, statement: str = "select 1") -> list[str]:
    """Return table and description of what a run contradicts once a statement has changed it, and change it back."""
    found = []
    with psycopg.connect(warehouse.owner_url) as connection:
        assert connection.execute(statement).rowcount > 0
        for table in suite.tables:
            for one in table.expectations:
                query = getattr(one, "unexpected_rows_query", None)
                asked = query and connection.execute(query.replace("{batch}", f"({table.rows}) as rows"))
                if asked and asked.fetchall():
                    found.append(f"{table.table}: {one.description}")
        connection.rollback()
    return found


SUITE = load_suite("scores", VALUES)
SCORES = "update ml.scores set {} where run_id = 'now' and model = '{}' {}"
POPULATION, COUNTS, RANKS = "Every account of the population", "As many scores", "Ranks run from 1"
PLAIN, VALUE, NEXT, SPREAD = "Three different", "An expected value", "A next best category", "The scores tell"
SCORE_DRIFT, WHOLE, MEASURED = (
    "The population stability",
    "Where there are clusters",
    "The drift of the scores",
)
OF_FIT, LISTED, SCORED = "The clusters are those", "The places of an account", "A score is a number"
OF_DATE, BOUGHT = "It is of this date", "No account is recommended"


def test_a_run_that_is_right_contradicts_nothing(run: Warehouse) -> None:
    assert contradicted(run, SUITE) == []


def test_every_model_is_looked_at_in_every_way() -> None:
    """The trials of two dates, and the contracts that are due, are others: their distributions are not compared."""
    looked_at: dict[str, set[str | None]] = {}
    for table in SUITE.tables:
        looked_at.setdefault(table.table.removesuffix(f"_{table.model}"), set()).add(table.model)
    for table in ("ml.scores", "ml.drift", "ml.calibration_drift"):
        assert looked_at[table] == set(MODELS), table
    assert looked_at["ml.scores_shift"] == set(MODELS) - {"trial", "lapse"}


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_did_not_run_is_missed(run: Warehouse, model: str) -> None:
    found = contradicted(run, SUITE, f"delete from ml.runs where run_id = 'now' and model = '{model}'")
    assert found[0].startswith("ml.runs: Every model has scored the run")


@pytest.mark.parametrize("day", ["2026-03-09", "2026-03-11"])
def test_a_run_of_another_date_is_seen_though_its_scores_are_of_it_too(run: Warehouse, day: str) -> None:
    moved = f"with scores as (update ml.scores set as_of_date = '{day}' where run_id = 'now' and model = 'trial') "
    statement = moved + f"update ml.runs set as_of_date = '{day}' where run_id = 'now' and model = 'trial'"
    assert contradicted(run, SUITE, statement) == ["ml.runs: A run's scores are of its date."]


@pytest.mark.parametrize(
    ("statement", "table", "told"),
    [
        # Who has a score: nobody too few, nobody too many, each model's own population on the date.
        (
            "with told as (update ml.runs set accounts = 29 where run_id = 'now' and model = 'repurchase') "
            "delete from ml.scores where run_id = 'now' and model = 'repurchase' and account_id = 'A40'",
            "repurchase",
            POPULATION,
        ),
        (SCORES.format("account_id = 'A99'", "repurchase", "and account_id = 'A40'"), "repurchase", POPULATION),
        ("delete from marts.lapse_features where account_id = 'A28'", "churn", POPULATION),
        ("insert into marts.lapse_features (as_of_date, account_id) values ('2026-03-10', 'A11')", "churn", POPULATION),
        ("update marts.lapse_features set is_due = true where account_id = 'A28'", "lapse", POPULATION),
        ("update marts.lapse_features set is_due = false where account_id = 'A21'", "lapse", POPULATION),
        ("update marts.account_features set categories_total = 0 where account_id = 'A11'", "upsell", POPULATION),
        ("update marts.account_features set categories_total = 2 where account_id = 'A40'", "upsell", POPULATION),
        ("update ml.runs set definition = 'rise in spend' where run_id = 'now' and model = 'upsell'", "upsell", POPULATION),
        ("delete from marts.trial_features where account_id = 'T11'", "trial", POPULATION),
        ("insert into marts.trial_features (as_of_date, account_id) values ('2026-03-10', 'T99')", "trial", POPULATION),
        # What the run's books say.
        ("update ml.runs set accounts = accounts + 1 where run_id = 'now' and model = 'lapse'", "lapse", COUNTS),
        ("update ml.runs set accounts = accounts - 1 where run_id = 'now' and model = 'lapse'", "lapse", COUNTS),
        (SCORES.format("model_id = 'm-churn'", "trial", "and account_id = 'T11'"), "trial", COUNTS),
        (SCORES.format("as_of_date = '2026-03-09'", "trial", "and account_id = 'T11'"), "trial", COUNTS),
        # Ranks.
        (SCORES.format("score_rank = score_rank + 1", "trial", ""), "trial", RANKS),
        (SCORES.format("score_rank = 4", "trial", "and score_rank = 5"), "trial", RANKS),
        (SCORES.format("probability = 0.999", "trial", "and score_rank = 5"), "trial", RANKS),
        # Reasons.
        *(
            (SCORES.format(f"reason_{one} = reason_{other}", "trial", "and score_rank = 2"), "trial", PLAIN)
            for one, other in ((1, 2), (1, 3), (2, 3))
        ),
        *((SCORES.format(f"reason_{one} = ' '", "trial", "and score_rank = 2"), "trial", PLAIN) for one in (1, 2, 3)),
        *(
            (SCORES.format(f"reason_2 = E'a{sign}b'", "trial", "and score_rank = 2"), "trial", PLAIN)
            for sign in ("<", ">", "\\n", "\\r", "\\t")
        ),
        # Values.
        (SCORES.format("expected_value = -0.01", "repurchase", "and score_rank = 2"), "repurchase", VALUE),
        (SCORES.format("expected_value = null", "repurchase", "and score_rank = 2"), "repurchase", VALUE),
        (SCORES.format("expected_value = 1", "upsell", "and score_rank = 2"), "upsell", VALUE),
        (SCORES.format("next_best_probability = probability + 0.001", "upsell", "and score_rank = 2"), "upsell", NEXT),
        (SCORES.format("next_best_probability = -0.001", "upsell", "and score_rank = 2"), "upsell", NEXT),
        (SCORES.format("next_best = null", "upsell", "and score_rank = 2"), "upsell", NEXT),
        # Spread: of a model of many, of a rare event, and of a handful that is large enough.
        ("update ml.scores set probability = 0.49 + probability * 0.05 where model = 'churn'", "churn", SPREAD),
        (
            "with rare as (update ml.runs set base_rate = 0.02 where run_id = 'now' and model = 'churn') "
            "update ml.scores set probability = 0.02 + probability * 0.01 where model = 'churn'",
            "churn",
            SPREAD,
        ),
        (
            "with more as (insert into marts.trial_features (as_of_date, account_id) select '2026-03-10', 'T' || n "
            "from generate_series(16, 40) as n), counted as (update ml.runs set accounts = 30 where run_id = 'now' and "
            "model = 'trial'), scored as (insert into ml.scores select 'now', 'trial', 'T' || n, '2026-03-10', 'm-trial', "
            "0.2, n - 10, 'one', 'two', 'three' from generate_series(16, 40) as n) "
            + SCORES.format("probability = 0.2", "trial", ""),
            "trial",
            SPREAD,
        ),
        # Drift.
        *(
            (
                f"delete from ml.drift where subject = 'score' and reference = '{reference}' and model = 'trial'",
                "ml.drift_trial",
                MEASURED,
            )
            for reference in ("training", "last_set")
        ),
        (
            "update ml.drift set psi = 0.26, psi_by_chance = 0.2, distance = 0.051 "
            "where reference = 'last_set' and model = 'upsell'",
            "ml.drift_upsell",
            SCORE_DRIFT,
        ),
        (
            "update ml.drift set state = 'shifted' where subject = 'feature' and model = 'lapse'",
            "ml.drift_lapse",
            "No feature, and not the scores",
        ),
        (
            "update ml.calibration_drift set calibration_error = 0.051 "
            "where run_id = 'newest' and part = 0 and model = 'trial'",
            "ml.calibration_drift_trial",
            "What was told on the newest month-end",
        ),
        # Clusters.
        ("update ml.cluster_runs set as_of_date = '2026-03-09'", "ml.cluster_runs", OF_DATE),
        ("update ml.cluster_runs set accounts = 29", "ml.cluster_runs", OF_DATE),
        ("update ml.cluster_fits set fitted_on = '2026-03-10' where fit_id = 'f1'", "ml.cluster_runs", OF_DATE),
        (
            "with one as (delete from ml.account_clusters where account_id = 'A11') "
            "update ml.cluster_runs set accounts = 29",
            "ml.account_clusters",
            WHOLE,
        ),
        ("update ml.account_clusters set account_id = 'A99' where account_id = 'A11'", "ml.account_clusters", WHOLE),
        *(
            (f"update ml.account_clusters set distance = '{far}' where account_id = 'A11'", "ml.account_clusters", OF_FIT)
            for far in (-0.1, "nan", "infinity")
        ),
        ("update ml.account_clusters set cluster_id = 9 where account_id = 'A11'", "ml.account_clusters", OF_FIT),
        ("update ml.account_clusters set as_of_date = '2026-03-09' where account_id = 'A11'", "ml.account_clusters", OF_FIT),
        # Lists.
        ("update ml.recommendation_runs set as_of_date = '2026-03-09'", "ml.recommendation_runs", OF_DATE),
        (
            "with lists as (delete from ml.recommendations) update ml.recommendation_fits set fitted_as_of = '2026-03-11'",
            "ml.recommendation_runs",
            OF_DATE,
        ),
        ("delete from ml.recommendations where place = 1", "ml.recommendations", LISTED),
        ("update ml.recommendations set place = 9 where place = 4", "ml.recommendations", LISTED),
        ("update ml.recommendations set product_id = 'bought since' where place = 3", "ml.recommendations", LISTED),
        *(
            (f"update ml.recommendations set {wrong} where place = 2", "ml.recommendations", SCORED)
            for wrong in ("score = -0.1", "score = 'nan'", "score = 'infinity'", "reason = ' '", "reason = E'a\\nb'")
        ),
        ("update ml.recommendations set product_id = 'owned' where place = 2", "ml.recommendations", BOUGHT),
    ],
)  # fmt: skip
def test_one_thing_that_is_wrong_contradicts_the_expectation_of_it(
    run: Warehouse, statement: str, table: str, told: str
) -> None:
    table = table if "." in table else f"ml.scores_{table}"
    assert [one[: len(f"{table}: {told}")] for one in contradicted(run, SUITE, statement)] == [
        f"{table}: {told}"
    ]


@pytest.mark.parametrize(
    "statement",
    [
        # Rare: a spread of half the base rate tells accounts apart. A handful of trials may be told all the same.
        "with rare as (update ml.runs set base_rate = 0.02 where run_id = 'now' and model = 'trial') "
        + SCORES.format("probability = 0.02 + probability * 0.02", "trial", ""),
        SCORES.format("probability = 0.2", "trial", ""),
        SCORES.format("probability = 0.2", "lapse", ""),
        # An index above the limit: by chance, of scores that hardly moved, of accounts that are others, against training.
        "update ml.drift set psi = 0.3, psi_by_chance = 0.31, distance = 0.2 where reference = 'last_set'",
        "update ml.drift set psi = 0.3, distance = 0.049 where reference = 'last_set'",
        "update ml.drift set psi = 0.3, distance = 0.2 where reference = 'last_set' and model in ('trial', 'lapse')",
        "update ml.drift set psi = 0.3, distance = 0.2 where reference = 'training'",
        "update ml.drift set state = 'shifted' where reference = 'last_set'",
        "update ml.drift set state = 'moved' where subject = 'feature'",
        # Lists that another run has shown: what was bought since is nobody's fault.
        "with shown as (insert into ml.recommendation_runs values ('before', '2026-03-09', 'r1', null)) "
        "update ml.recommendations set product_id = 'owned' where place = 2",
        # A run without clusters assigns nobody.
        "with none as (delete from ml.account_clusters) "
        "update ml.cluster_runs set fit_id = null, reason = 'none are made', accounts = 0",
    ],
)
def test_what_looks_wrong_and_is_right_contradicts_nothing(run: Warehouse, statement: str) -> None:
    assert contradicted(run, SUITE, statement) == []


@pytest.mark.parametrize(
    ("limit", "value", "statement", "told"),
    [
        ("score_spread", 0.2, "update ml.runs set base_rate = 0.9", "ml.scores_churn: The scores tell"),
        ("score_shift", 0.02, SCORES.format("probability = probability - 0.03", "upsell", ""), "ml.scores_shift_upsell"),
        ("score_shift", 0.02, SCORES.format("probability = probability + 0.03", "upsell", ""), "ml.scores_shift_upsell"),
        ("score_psi", 0.3, "update ml.drift set psi = 0.35, distance = 1", "ml.drift_churn: The population"),
        ("score_psi_distance", 0.2, "update ml.drift set psi = 1, distance = 0.11", "ml.drift_churn: The population"),
        ("calibration_error", 0.01, "select 1", "ml.calibration_drift_churn: What was told"),
    ],
)  # fmt: skip
def test_a_dated_limit_decides_how_far_is_too_far(
    run: Warehouse, tmp_path: Path, limit: str, value: float, statement: str, told: str
) -> None:
    """Just beyond the limit is told; with the limit twice as wide it is not. Spread is the least that is asked for."""
    shutil.copy(EXPECTATIONS / "scores.yml", tmp_path)
    narrowed = (
        "with narrowed as (update ml.scores set probability = 0.4 + probability * 0.2 where model = 'churn') "
    )
    statement = narrowed + statement if limit == "score_spread" else statement

    def told_with(value: float) -> list[str]:
        rows = {**limits(DAY), limit: value}
        lines = [f"{name},{row},{DAY - timedelta(days=1)},why\n" for name, row in rows.items()]
        (tmp_path / "limits.csv").write_text("name,value,effective_from,why\n" + "".join(lines))
        found = contradicted(run, load_suite("scores", VALUES, tmp_path), statement)
        return [one for one in found if one.startswith(told)]

    assert len(told_with(value)) == 1
    assert told_with(value / 2 if limit == "score_spread" else value * 2) == []
