"""Leaks that are put in on purpose are found, and a model of nothing is refused."""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from include.errors import StratumError
from include.warehouse.connect import connect
from ml import champion
from ml.estimators import NothingLearned
from ml.features import FEATURES
from ml.frames import LABEL, features_on, training_frame
from ml.params import params_of
from ml.score import score_accounts
from ml.targets import CHURN, TARGETS, Policy
from ml.train import Fitted, fit_model
from tests.conftest import Warehouse
from tests.ml import world
from tests.ml.conftest import AS_OF
from tests.ml.world import make_marts, month_ends, order_days

DAY = date(2025, 10, 31)
POLICY = Policy(90, 90)
honest = world.features


def counts_later_orders(days: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """An aggregate whose window does not end with the date."""
    frame, ahead = honest(days, as_of), days["order_date"].map(lambda day: (day - as_of).days)
    later = days[(ahead > 0) & (ahead <= 30)].groupby("account_id").size()
    return frame.assign(orders_90d=frame["orders_90d"] + frame["account_id"].map(later).fillna(0).astype(int))


def holds_the_label(days: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """The outcome itself under another name."""
    following = world.outcomes(days, as_of).query("horizon_days == 90").set_index("account_id")["has_ordered"]
    frame = honest(days, as_of)
    return frame.assign(open_tickets=frame["account_id"].map(following).astype(int))


def holds_the_newest_status(days: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """A status that the source overwrites in place: every date shows what it is today."""
    newest = days.groupby("account_id")["order_date"].max()
    frame = honest(days, as_of)
    has_turned_away = frame["account_id"].map(newest).map(lambda day: (world.LAST - day).days > 120)
    return frame.assign(nps_latest=np.where(has_turned_away, 2, 9))


def frames(days: pd.DataFrame) -> list[pd.DataFrame]:
    """What a model as of DAY is trained on, and what it scores."""
    make_marts(days, month_ends(date(2025, 5, 1), DAY))
    with connect("scorer") as connection:
        return [training_frame(connection, CHURN, DAY, POLICY), features_on(connection, CHURN, [DAY])]


def is_moved_by_what_is_later() -> bool:
    """Whether other orders after DAY change a frame as of DAY."""
    days = order_days(25)
    random = np.random.default_rng(2)
    later = pd.DataFrame(
        {
            "account_id": random.choice(days["account_id"].unique(), 60),
            "order_date": [DAY + timedelta(days=1 + int(60 * random.random())) for _ in range(60)],
            "amount": np.round(1e4 * random.random(60), 2),
        }
    ).drop_duplicates(["account_id", "order_date"])
    known = days[days["order_date"] <= DAY]
    before, after = frames(days), frames(pd.concat([known, later]))
    return any(not one.equals(other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("leak", [None, counts_later_orders, holds_the_label, holds_the_newest_status])
def test_a_leak_is_found_by_changing_what_is_later(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, leak: Callable | None
) -> None:
    if leak is not None:
        monkeypatch.setattr(world, "features", leak)
    assert is_moved_by_what_is_later() is (leak is not None)


def test_a_label_among_the_features_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(StratumError, match="missing none; new will_order"):
        fit_model(CHURN, AS_OF, frame.assign(will_order=1.0 - frame[LABEL]), POLICY, params_of("churn"))


def test_no_feature_is_an_outcome() -> None:
    outcomes = {"has_ordered", "has_new_category", "net_revenue", "net_revenue_before", "next_order_date"}
    assert not outcomes & {feature.name for feature in FEATURES}
    assert all(
        set(target.names) <= {one.name for one in FEATURES} for one in TARGETS.values() for target in one
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_shuffled_labels_is_refused(frame: pd.DataFrame, fitted: Fitted, seed: int) -> None:
    random = np.random.default_rng(seed)
    shuffled = frame.assign(happened=frame.groupby("as_of_date")[LABEL].transform(random.permutation))
    with pytest.raises(StratumError, match=r"rank no better than chance \(mean AUC 0\.(4|5)"):
        fit_model(CHURN, AS_OF, shuffled, POLICY, params_of("churn"))
    assert fitted.model.training_rows == len(frame)  # the labels as they are are not


def test_a_refused_training_is_written_down_and_not_tried_again_for_the_day(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(model: str, as_of: date) -> str:
        tried.append(as_of)
        raise NothingLearned("nothing holds")

    tried: list[date] = []
    make_marts(order_days(), month_ends(world.FIRST, date(2026, 2, 28)))
    monkeypatch.setattr(champion, "train", refused)
    assert [champion.settle("churn", day) for day in (AS_OF, AS_OF)] == [[], []]
    assert tried == [date(2026, 2, 2), date(2026, 2, 23)]  # the period's first day and the week's, each once
    assert score_accounts("churn", AS_OF, "run").reason == "nothing holds"
    assert warehouse.rows("select status, reason from ml.runs") == [("absent", "nothing holds")]
