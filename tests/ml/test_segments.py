"""Slices of a card: each held-out row has the tier, industry and size that the marts tell of its account on its date."""

from datetime import date

import pandas as pd
import pytest
import yaml

from include.dbt import DBT_PROJECT
from include.warehouse.connect import connect
from ml import registry
from ml.copies import write_rows
from ml.figures import held_out_rows, record, segments_on
from ml.params import params_of
from ml.targets import CHURN
from ml.train import Fitted
from tests.conftest import Warehouse
from tests.ml.world import make_marts, order_days

MARTS = {"account_tiers": "tier", "account_profiles": "industry", "account_kinds": "company_size"}
KEYS = ("as_of_date", "account_id")


@pytest.fixture(scope="module")
def rows(fitted: Fitted) -> pd.DataFrame:
    """The held-out rows with the segments they must be told in; of some accounts the marts do not know all."""
    rows = held_out_rows(fitted.model, fitted.predicted, params_of("churn"))
    number, month = rows["account_id"].str[1:].astype(int), rows["as_of_date"].dt.month
    tier = number.add(month).mod(2).map({0: "S", 1: "B"})  # another one each month
    return rows.assign(
        tier=tier,
        industry=number.mod(3).map({0: "retail", 1: "medical & care"}),  # of a third it is not known
        company_size=number.mod(5).map({0: "enterprise"}).where(number < 60, "sme"),
    )


@pytest.fixture(scope="module")
def figures(
    module_warehouse: Warehouse, fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame
) -> pd.DataFrame:
    """What ml.metrics holds of the slices, after a training whose marts were there."""
    make_marts(order_days(), [stamp.date() for stamp in rows["as_of_date"].unique()])
    with connect("transformer") as connection:
        for mart, column in MARTS.items():
            connection.execute(f"create table marts.{mart} (as_of_date date, account_id text, {column} text)")
            known = rows[rows[column].notna()]
            of_dates = [
                (stamp.date(), account, value)
                for stamp, account, value in zip(
                    known["as_of_date"], known["account_id"], known[column], strict=True
                )
            ]
            other_dates = [(date(2026, 2, 28), account, "another day's") for _, account, _ in of_dates]
            write_rows(connection, f"marts.{mart}", (*KEYS, column), of_dates + sorted(set(other_dates)))
            write_rows(
                connection, f"marts.{mart}", (*KEYS, column), [(of_dates[0][0], "a stranger", "nobody's")]
            )
    with connect("scorer") as connection:
        registry.save(connection, fitted.model, fitted.artefact, "test", "test")
        record(connection, CHURN, fitted.model, fitted.pipeline, fitted.predicted, frame, fitted.importances)
    told = module_warehouse.rows(
        "select population, estimator || ' ' || metric, value, low, high, rows from ml.metrics "
        "where population like '%%: %%' and kind = 'validation' and evaluated_as_of = %s",
        fitted.model.window_to,
    )
    return pd.DataFrame(told, columns=["population", "figure", "value", "low", "high", "rows"])


def test_a_training_keeps_the_figures_of_each_tier_industry_and_size(
    figures: pd.DataFrame, rows: pd.DataFrame
) -> None:
    expected = {
        f"{name}: {value}": part
        for name, column in (("tier", "tier"), ("industry", "industry"), ("size", "company_size"))
        for value, part in rows.fillna({column: "unknown"}).groupby(column)
    }
    assert set(figures["population"]) == set(expected)
    assert {"tier: S", "tier: B", "industry: medical & care", "industry: unknown", "size: enterprise"} < set(
        expected
    )
    found = figures.set_index(["population", "figure"])
    for population, part in expected.items():
        rate, told = (
            found.loc[(population, name)] for name in ("observed churn_rate", "model mean_probability")
        )
        assert rate["rows"] == told["rows"] == len(part)
        assert rate["value"] == pytest.approx(part["happened"].mean())
        assert told["value"] == pytest.approx(part["probability"].mean())
        assert rate["low"] <= rate["value"] <= rate["high"]
        assert (population, "model brier") in found.index
    assert len(figures[figures["figure"] == "model auc"]) > 3


def test_without_one_of_the_marts_there_are_no_slices(
    module_warehouse: Warehouse, figures: pd.DataFrame, rows: pd.DataFrame
) -> None:
    def told() -> pd.DataFrame | None:
        with connect("scorer") as connection:
            return segments_on(connection, dates)

    dates = sorted(map(pd.Timestamp, rows["as_of_date"].unique()))
    found = told()
    assert found is not None
    assert set(found["as_of_date"]) == set(dates)
    module_warehouse.rows("alter table marts.account_kinds rename to gone")
    try:
        assert told() is None
    finally:
        module_warehouse.rows("alter table marts.gone rename to account_kinds")


def test_the_marts_have_the_columns_that_are_asked_for() -> None:
    for mart, column in MARTS.items():
        (path,) = (DBT_PROJECT / "models" / "marts").rglob(f"{mart}.yml")
        (model,) = yaml.safe_load(path.read_text())["models"]
        assert {*KEYS, column} <= {one["name"] for one in model["columns"]}, mart
