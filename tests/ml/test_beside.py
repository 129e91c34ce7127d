"""What stands beside a model on its held-out dates: fitted on what was known then, on the same rows, and on its card."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pytest

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import beside, registry
from ml.baselines import bg_nbd, logistic
from ml.card import drawings, facts_of, render
from ml.card_parts import ranged
from ml.copies import write_rows
from ml.estimators import told_later
from ml.figures import POOLED, held_out_rows, pooled, record
from ml.frames import LABEL
from ml.judge import ON_DATE, Figure
from ml.metrics import auc, brier, once
from ml.params import params_of
from ml.targets import CHURN, REPURCHASE, TRIAL
from ml.train import Fitted
from tests.conftest import Warehouse
from tests.ml.world import HORIZON, features, make_marts, order_days

PARAMS = params_of("churn")
ACTIVE = f"{POOLED}, active_90"
WARNED = ("as_of_date", "account_id", "severity", "rules_warning")
Found = Mapping[tuple[str, str, str], Figure]


@pytest.fixture(scope="module")
def rows(fitted: Fitted) -> pd.DataFrame:
    """The held-out rows of the small company's model."""
    return held_out_rows(fitted.model, fitted.predicted, PARAMS)


@pytest.fixture(scope="module")
def warnings(rows: pd.DataFrame) -> pd.DataFrame:
    """Warnings of the held-out dates that are right of eight accounts in nine, and of every fifth tell nothing."""
    number = np.arange(len(rows))
    told = np.where(number % 9 == 0, 1 - rows[LABEL], rows[LABEL])
    severity = np.where(number % 5 == 0, None, np.where(told == 1, "high", "low"))
    return rows[["as_of_date", "account_id"]].assign(severity=severity, rules_warning=number % 3)


@pytest.fixture(scope="module")
def world(
    module_warehouse: Warehouse,
    fitted: Fitted,
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    warnings: pd.DataFrame,
) -> Warehouse:
    """The small company's marts on the held-out dates, its warnings among them, and its model with the figures kept."""
    make_marts(order_days(), [stamp.date() for stamp in rows["as_of_date"].unique()])
    with connect("transformer") as connection:
        connection.execute(
            "create table marts.account_warnings (as_of_date date, account_id text, severity text, rules_warning int)"
        )
        kept = [(stamp.date(), *row) for stamp, *row in warnings.itertuples(index=False, name=None)]
        write_rows(connection, "marts.account_warnings", WARNED, kept)
    keep(fitted, frame)
    return module_warehouse


def keep(fitted: Fitted, frame: pd.DataFrame) -> None:
    with connect("scorer") as connection:
        registry.save(connection, fitted.model, fitted.artefact, "test", "test")
        record(connection, CHURN, fitted.model, fitted.pipeline, fitted.predicted, frame, fitted.importances)


def kept_of(fitted: Fitted) -> tuple[Found, str]:
    """Return the held-out figures that the warehouse keeps of the model, and its card."""
    with connect("scorer") as connection:
        facts = facts_of(connection, fitted.model.model_id)
    return facts.held_out(), render(facts, drawings(facts))


@pytest.fixture
def again(world: Warehouse, fitted: Fitted) -> Iterator[Warehouse]:
    """Forget the model's figures for a test that makes them anew, and at its end keep those it had."""
    world.rows("create table kept_metrics as select * from ml.metrics")
    world.rows("delete from ml.metrics")
    try:
        yield world
    finally:
        world.rows("delete from ml.metrics")
        world.rows("insert into ml.metrics select * from kept_metrics")
        world.rows("drop table kept_metrics")


def told_then(fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame, way: str) -> np.ndarray:
    """What a way told of each held-out row, reckoned here: fitted on labels that were known on the date alone."""
    used = [one["name"] for one in fitted.model.features if one["used"]]
    parts = []
    for day in sorted(rows["as_of_date"].unique()):
        accounts = rows.loc[rows["as_of_date"] == day, "account_id"]
        if way == "bg_nbd":
            now = features(order_days(), pd.Timestamp(day).date())
            orders = bg_nbd(now, now, HORIZON, PARAMS.evaluation.bg_nbd_penalizers).orders
            told = pd.Series(-orders, index=now["account_id"])
        else:
            known = frame[frame["as_of_date"] + pd.Timedelta(days=HORIZON) <= day]
            names = used if way == "logistic" else ["days_since_last_order"]
            now = frame[frame["as_of_date"] == day]
            model = logistic(known, names, PARAMS.evaluation.logistic_c, PARAMS.seed)
            told = pd.Series(model.predict_proba(now[names])[:, 1], index=now["account_id"])
        parts.append(told.loc[accounts].to_numpy())
    return np.concatenate(parts)


def test_each_way_is_fitted_on_what_was_known_on_each_held_out_date(
    world: Warehouse, fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame
) -> None:
    found, _ = kept_of(fitted)
    assert len(rows["as_of_date"].unique()) == 3
    lately = (rows["days_since_last_order"] < 90).to_numpy()
    for population, part in ((POOLED, np.ones(len(rows), dtype=bool)), (ACTIVE, lately)):
        happened = rows[LABEL].to_numpy(float)[part]
        for way in ("logistic", "bg_nbd"):
            told = told_then(fitted, frame, rows, way)[part]
            assert found[population, way, "auc"].value == pytest.approx(
                auc(told, happened, once(len(happened)))[0], abs=1e-6
            )
        for way in ("logistic", "recency"):
            told = told_then(fitted, frame, rows, way)[part]
            assert found[population, way, "brier"].value == pytest.approx(
                brier(told, happened, once(len(happened)))[0], abs=1e-6
            )
        own = found[population, "model", "auc"].value
        for way in ("recency", "rules", "logistic", "bg_nbd"):
            less = found[population, f"model-{way}", "auc"]
            assert less.value == pytest.approx(own - found[population, way, "auc"].value)
            assert less.low < less.value < less.high
            assert less.rows == part.sum()


def test_each_held_out_date_is_told_alone_with_paired_intervals_and_on_the_card(
    world: Warehouse, fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame
) -> None:
    with connect("scorer") as connection:
        facts = facts_of(connection, fitted.model.model_id)
    page = render(facts, drawings(facts))
    section = page.partition("<h3>Date by date</h3>")[2].partition("</table>")[0]
    assert list(facts.dates()) == [stamp.date() for stamp in sorted(rows["as_of_date"].unique())]
    told = {way: told_then(fitted, frame, rows, way) for way in ("logistic", "bg_nbd")}
    told["model"] = rows["probability"].to_numpy()
    told["recency"] = rows["days_since_last_order"].to_numpy(float)
    for day, found in facts.dates().items():
        of_day = (rows["as_of_date"] == pd.Timestamp(day)).to_numpy()
        happened, every = rows[LABEL].to_numpy(float)[of_day], once(int(of_day.sum()))
        for way, scores in told.items():
            figure = found[ON_DATE, way, "auc"]
            assert figure.value == pytest.approx(auc(scores[of_day], happened, every)[0], abs=1e-6)
            assert (figure.rows, figure.low < figure.high) == (of_day.sum(), True)
        for metric, ways in (("auc", ("recency", "rules", "logistic", "bg_nbd")), ("brier", ("logistic",))):
            for way in ways:
                less = found[ON_DATE, f"model-{way}", metric]
                own, other = (found[ON_DATE, one, metric].value for one in ("model", way))
                assert less.value == pytest.approx(own - other)
                assert less.low < less.high
                assert f"<td>{less.value:+.3f}, {less.low:+.3f} to {less.high:+.3f}" in section
        assert (ON_DATE, "rules", "brier") not in found
        assert f"<td>{day}: {of_day.sum():,} accounts, {happened.mean():.1%} came true, " in section


def test_rules_are_read_of_the_dates_and_unknown_ones_count_as_none(
    world: Warehouse, fitted: Fitted, rows: pd.DataFrame, warnings: pd.DataFrame
) -> None:
    found, _ = kept_of(fitted)
    worst = warnings["severity"].map({"low": 1, "high": 3}).fillna(0)
    score = (1000 * worst + warnings["rules_warning"]).to_numpy(float)
    happened = rows[LABEL].to_numpy(float)
    assert found[POOLED, "rules", "auc"].value == pytest.approx(
        auc(score, happened, once(len(happened)))[0], abs=1e-9
    )
    assert (POOLED, "rules", "brier") not in found


def test_acting_is_worth_what_was_at_stake_on_the_held_out_dates(
    world: Warehouse, fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame
) -> None:
    found, page = kept_of(fitted)
    of_rows = rows.merge(
        frame[["as_of_date", "account_id", "net_revenue_365d"]], on=["as_of_date", "account_id"], how="left"
    )
    gains = (of_rows[LABEL] * of_rows["net_revenue_365d"].clip(lower=0) * 90 / 365 * 0.1 - 2).to_numpy()
    assert found[POOLED, "random", "acting_20"].value == pytest.approx(gains.sum() / 5)
    for way in ("model", "model_by_value", "recency", "rules", "logistic", "bg_nbd"):
        figure = found[POOLED, way, "acting_10"]
        assert figure.low <= figure.value <= figure.high
    assert found[POOLED, "model_by_value", "acting_20"].value > found[POOLED, "random", "acting_20"].value
    section = page.partition("<h2>Worth of acting</h2>")[2].partition("<h2>")[0]
    assert "10% kept and a cost of 2.00" in section
    for title in ("model, by value", "warning rules", "logistic regression", "BG/NBD", "at random"):
        assert title in section
    by_value = found[POOLED, "model_by_value", "acting_05"]
    assert f"<td>{by_value.value:,.0f} ({by_value.low:,.0f} to {by_value.high:,.0f})</td>" in section


def test_the_card_sets_all_ways_side_by_side_for_both_populations(world: Warehouse, fitted: Fitted) -> None:
    found, page = kept_of(fitted)
    section = page.partition("<h2>How good it is")[2].partition("<h2>")[0]
    heads = "".join(
        f"<th>{title}</th>"
        for title in (
            "",
            "model",
            "recency alone",
            "warning rules",
            "logistic regression",
            "BG/NBD, expected orders",
        )
    )
    assert section.count(f"<tr>{heads}</tr>") == 2
    ways = ("model", "recency", "rules", "logistic", "bg_nbd")
    for population, title in ((POOLED, "All"), (ACTIVE, "Bought in the last 90 days")):
        part = section.partition(f"<h3>{title}</h3>")[2].partition("<h3>")[0]
        cells = "".join(f"<td>{ranged(found.get((population, way, 'auc')))}</td>" for way in ways)
        assert f"<tr><td>AUC</td>{cells}</tr>" in part
        cells = "".join(
            f"<td>{ranged(found.get((population, f'model-{way}', 'brier')))}</td>" for way in ways
        )
        assert f"<tr><td>the model&#x27;s Brier less this</td>{cells}</tr>" in part
        assert "does not stand beside" not in part


def test_a_way_that_cannot_be_told_is_left_out_keeps_no_model_away_and_the_card_says_why(
    again: Warehouse, fitted: Fitted, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StratumError("BG/NBD does not converge with any of the penalizers.")

    monkeypatch.setattr(beside, "bg_nbd", fails)
    again.rows("alter table marts.account_warnings rename to gone")
    try:
        keep(fitted, frame)
    finally:
        again.rows("alter table marts.gone rename to account_warnings")
    found, page = kept_of(fitted)
    assert {way for population, way, metric in found if (population, metric) == (POOLED, "auc")} == {
        "model", "recency", "logistic", "model-recency", "model-logistic"
    }  # fmt: skip
    assert "The warning rules do not stand beside the model: on these dates" in page
    assert "BG/NBD does not stand beside the model: no fit of its parameters converged" in page


def test_without_the_policy_the_worth_of_acting_is_not_told(
    again: Warehouse, fitted: Fitted, frame: pd.DataFrame
) -> None:
    again.rows("delete from marts.thresholds where name = 'contact_cost'")
    try:
        keep(fitted, frame)
    finally:
        again.rows("insert into marts.thresholds values ('contact_cost', 2, '2000-01-01')")
    found, page = kept_of(fitted)
    assert not any(metric.startswith("acting") for *_, metric in found)
    assert "<h2>Worth of acting</h2>\n<p class=note>Not told: " in page


def test_figures_follow_from_the_data_and_the_seed(
    world: Warehouse, fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame
) -> None:
    def made() -> list[Figure]:
        told = beside.on_held_out(CHURN, fitted.model, fitted.predicted, rows, frame, PARAMS)
        with connect("scorer") as connection:
            told = beside.known_on_held_out(connection, CHURN, HORIZON, told, PARAMS)
        return list(pooled(CHURN, told, 90, PARAMS))

    assert made() == made()


def test_a_large_history_is_learned_from_in_part(
    fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that are told of stay the same; what they are told is learned from fewer accounts."""
    learned: list[pd.DataFrame] = []

    def noted(known: pd.DataFrame, *rest: object) -> object:
        learned.append(known)
        return logistic(known, *rest)

    monkeypatch.setattr(beside, "logistic", noted)
    monkeypatch.setattr(beside, "LEARNED_ROWS", 300)
    told = beside.on_held_out(CHURN, fitted.model, fitted.predicted, rows, frame, PARAMS)
    pd.testing.assert_frame_equal(told[list(rows.columns)], rows)
    for known, day in zip(learned[::2], sorted(rows["as_of_date"].unique()), strict=True):
        whole = frame[frame["as_of_date"] + pd.Timedelta(days=HORIZON) <= day]
        assert 150 < len(known) < 450 < len(whole)
        drawn = whole[whole["account_id"].isin(known["account_id"])]
        assert len(drawn) == len(known), "an account is drawn with all its dates"


def test_why_orders_are_not_foretold_beside_a_model_is_told_of_each_that_has_none() -> None:
    assert [beside.speaks_of_orders(one) for one in (CHURN, REPURCHASE, TRIAL)] == [True, True, False]
    assert beside.why_no_orders(TRIAL).endswith(
        "it foretells orders from those before, and a trial has none."
    )


def test_held_out_dates_without_a_probability_have_nothing_beside_them(fitted: Fitted) -> None:
    told = told_later(fitted.predicted, HORIZON, PARAMS.level_history_days)
    assert len(told) == 3 < len(fitted.predicted) == 6
