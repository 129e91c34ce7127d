"""A model card tells every figure the warehouse keeps, points nowhere else, and its plots draw its tables' numbers."""

import re
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ml import card, card_beside, due, plots
from ml.card import Facts, drawings, render
from ml.card_features import captions
from ml.card_parts import number as shown
from ml.champion import Promotion
from ml.estimators import told_later
from ml.features import FEATURES
from ml.figures import CURVE, EFFECTS, POOLED, effects, pooled, sliced
from ml.judge import Figure
from ml.metrics import ece, log_loss, once
from ml.params import params_of
from ml.phrases import plain_name, written
from ml.targets import CHURN
from ml.train import Fitted


@pytest.fixture(scope="module")
def rows(fitted: Fitted) -> pd.DataFrame:
    """The held-out rows with what could be told of them then."""
    told = told_later(fitted.predicted, 90, 150)
    return pd.concat([one.rows.assign(as_of_date=one.date) for one in told], ignore_index=True)


@pytest.fixture(scope="module")
def facts(fitted: Fitted, frame: pd.DataFrame, rows: pd.DataFrame) -> Facts:
    """What the warehouse would keep of the small company's model, its odd accounts in tier A, industry unknown."""
    params = params_of("churn")
    segments = rows[["account_id", "as_of_date"]].assign(
        tier=np.where(rows["account_id"].str[-1] == "1", "A", "B & <C>"), industry=None, company_size="small"
    )
    segments.loc[segments["account_id"] == "A0000", "company_size"] = "enterprise"
    found = fitted.model
    figures: dict[tuple[str, date], list[Figure]] = {}
    for day, population, estimator, metric, value, count in fitted.metrics:
        figures.setdefault(("validation", day), []).append(
            Figure(population, estimator, metric, value, None, None, count)
        )
    figures["validation", found.window_to] += [
        *pooled(CHURN, rows, 90, params),
        *sliced(CHURN, rows, segments, params),
    ]
    judged = found.trained_as_of + timedelta(days=90)
    figures["evaluation", judged] = [
        Figure("all", who, "auc", value, value - 0.01, value + 0.01, 77)
        for who, value in (("model", 0.8123), ("recency", 0.7), ("logistic", 0.79), ("bg_nbd", 0.78), ("model-bg_nbd", 0.03))
    ]  # fmt: skip
    newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
    points: dict[str, list[tuple[float, float]]] = {}
    for name, value, mean in effects(fitted.pipeline, newest, fitted.importances, params.seed):
        points.setdefault(name, []).append((value, mean))
    decided = Promotion(
        "churn", date(2026, 3, 2), "person", "promoted", "old", None, found.model_id, "a <reason> kept"
    )
    return Facts(found, "boosting", "v1", "2026-03-02", figures, fitted.importances, points, [decided], "GBP")


@pytest.fixture(scope="module")
def page(facts: Facts) -> str:
    return render(facts, drawings(facts))


def test_every_figure_beside_the_model_is_explained_on_the_card(page: str) -> None:
    explained = set(re.findall(r"<dt>(.*?)</dt>", page))
    told = {re.sub(r" at \d+ %$", "", title) for title in card_beside._METRICS.values()}
    assert told <= explained
    assert all(f">{title}<" in page for title in card_beside._METRICS.values()), "and is told"


def test_the_card_has_every_figure_with_its_interval(facts: Facts, page: str) -> None:
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    told = {tuple(row) for row in cells if len(row) == 9}
    figures = [(*key, one) for key, of in facts.figures.items() for one in of]
    assert len(figures) > 150
    for kind, day, one in figures:
        population = one.population.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        ends = ("" if end is None else repr(end) for end in (one.low, one.high))
        assert (
            kind,
            str(day),
            population,
            one.estimator,
            one.metric,
            repr(one.value),
            *ends,
            str(one.rows),
        ) in told


def test_the_card_needs_nothing_from_elsewhere_and_runs_nothing(page: str) -> None:
    assert "<script" not in page
    assert "<C>" not in page
    assert "a &lt;reason&gt; kept" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", page)
    assert not re.findall(r"@import|url\((?!#)", page)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert page.count("<svg ") == 4


def test_the_card_tells_of_each_feature_what_it_is_and_who_decided(facts: Facts, page: str) -> None:
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    columns = [re.fullmatch(r".+ <small>(\w+)</small>", row[0]) for row in cells if len(row) == 7]
    told = {
        column[1]: row
        for column, row in zip(columns, (row for row in cells if len(row) == 7), strict=True)
        if column
    }
    assert set(told) == set(CHURN.names)
    assert {one["used"] for one in facts.model.features} == {True, False}
    for one in facts.model.features:
        name, kind, used, _, weight, *medians = told[one["name"]]
        assert name == f"{plain_name(one['name'])} <small>{one['name']}</small>".replace("'", "&#x27;")
        assert kind == ("amount, GBP" if one["kind"] == "amount" else one["kind"])
        assert used.partition(":")[0] == ("yes" if one["used"] else "no")
        assert weight == shown(facts.importances[one["name"]])
        typical = (one.get("typical_happened"), one.get("typical_not_happened"))
        assert medians == ["" if value is None else written(value, one["kind"]) for value in typical]
    assert told["orders_365d"][5].isdigit(), "a count is told as it is counted"
    assert any(row[5] != row[6] for row in told.values())
    assert "<td>promoted, by a person</td>" in page


def test_the_card_says_what_is_not_known(facts: Facts, page: str) -> None:
    assert "<tr><td>unknown</td>" in page
    assert "small: " in page  # the enterprise slice is one account
    from dataclasses import replace

    bare = replace(facts, figures={}, effects={}, promotions=[])
    told = render(bare, drawings(bare))
    for words in (
        "no held-out dates",
        "By tier: not known",
        "Not judged yet",
        "No decision names this model",
        "It has scored no date yet",
    ):
        assert words in told
    assert "<svg" not in told


def test_plots_draw_the_numbers_of_the_tables(facts: Facts, page: str) -> None:
    (axes,) = plots.reliability_plot(facts.reliability()).axes
    drawn = next(line for line in axes.lines if line.get_label() == "held-out dates").get_xydata()
    found = facts.held_out()
    for number, (x, y) in enumerate(drawn, start=1):
        assert x == found[POOLED, "model", f"reliability_{number:02d}_predicted"].value
        observed = found[POOLED, "model", f"reliability_{number:02d}_observed"]
        assert y == observed.value
        assert (
            f"<td>{number}</td><td>{x:.1%}</td><td>{y:.1%} ({observed.low:.1%} to {observed.high:.1%})</td>"
            in page
        )
    (axes,) = plots.gain_plot(facts.gain(), 0.4).axes
    drawn = next(line for line in axes.lines if line.get_label() == "model").get_xydata()
    assert [tuple(point) for point in drawn] == facts.gain()
    assert [x for x, _ in drawn] == [0.0, *CURVE]
    assert drawn[-1][1] == pytest.approx(1)
    panels = plots.drift_plot(card.monthly(facts)).axes
    for line, estimator in zip(panels[0].lines, ("model", "recency"), strict=True):
        monthly = [
            figure.value
            for (kind, _), of in sorted(facts.figures.items())
            for figure in of
            if (kind, figure.population, figure.estimator, figure.metric)
            == ("validation", "all", estimator, "auc")
        ]
        assert len(monthly) > 3
        assert list(line.get_ydata()) == monthly
    panels = plots.effects_plot(facts.effects, captions(facts.model, facts.effects, facts.currency)).axes
    for axes, (name, points) in zip(panels, facts.effects.items(), strict=False):
        assert axes.get_title(loc="left").replace("\n", " ") == plain_name(name)
        assert [tuple(point) for point in axes.lines[0].get_xydata()] == points
    assert len(facts.effects) == EFFECTS


def test_effects_share_a_scale_that_starts_at_nothing_and_say_their_unit(facts: Facts) -> None:
    """An axis cut to where the line lies would make a mountain of what hardly moves the probability."""
    called = captions(facts.model, facts.effects, facts.currency)
    panels = plots.effects_plot(facts.effects, called).axes[: len(facts.effects)]
    highest = max(y for points in facts.effects.values() for _, y in points)
    assert {axes.get_ylim() for axes in panels} == {panels[0].get_ylim()}
    assert panels[0].get_ylim()[0] == 0
    assert highest < panels[0].get_ylim()[1] <= 1.2 * highest
    assert panels[0].get_ylabel() == "mean probability"
    kinds = {one["name"]: one["kind"] for one in facts.model.features}
    units = {
        "days": "days",
        "count": "number",
        "amount": "GBP",
        "share": "",
        "score": "of 10",
        "flag": "0: no, 1: yes",
    }
    for axes, name in zip(panels, facts.effects, strict=True):
        assert axes.get_xlabel() == units[kinds[name]]
    assert {"days", "GBP"} <= {axes.get_xlabel() for axes in panels}


def test_every_feature_has_a_plain_name_of_its_own() -> None:
    called = [plain_name(one.name) for one in FEATURES]
    assert len(set(called)) == len(called)
    assert not [name for name in called if re.search(r"[{}_]", name)]
    assert plain_name("days_since_last_order") == "days since the last order"
    assert plain_name("orders_365d") == "orders in the last 365 days"
    assert plain_name("no_feature_of_this_version") == "no_feature_of_this_version"


def test_what_was_watched_since_is_drawn_month_by_month_and_told_as_a_table(facts: Facts) -> None:
    from dataclasses import replace

    series = {
        "PSI against training": {
            "scores": [(date(2026, 3, 31), 0.0123), (date(2026, 4, 2), 0.234)],
            "farthest feature": [(date(2026, 3, 31), 0.345), (date(2026, 4, 2), 0.456)],
        },
        "told and come true": {"told": [(date(2026, 1, 31), 0.5)], "came true": [(date(2026, 1, 31), 0.6)]},
    }
    seen = replace(facts, watched=series)
    page = render(seen, drawings(seen))
    assert page.count("<svg ") == 5
    assert "It has scored no date yet" not in page
    panels = plots.drift_plot(series).axes
    assert [axes.get_title(loc="left") for axes in panels] == list(series)
    for axes, lines in zip(panels, series.values(), strict=True):
        assert len({label.get_text() for label in axes.get_xticklabels()}) == len(axes.get_xticks())
        for line, (name, points) in zip(axes.lines, lines.items(), strict=True):
            assert line.get_label() == name
            assert list(line.get_ydata()) == [value for _, value in points]
    for title, lines in series.items():
        for name, points in lines.items():
            for day, value in points:
                assert f"<td>{title}</td><td>{name}</td><td>{day}</td><td>{value:.3f}</td>" in page


def test_a_figure_that_is_known_of_no_month_is_drawn_as_not_known() -> None:
    drawn = plots.svg(
        plots.drift_plot({"AUC": {"model": [(date(2026, 1, 31), 0.8)]}, "Brier": {"model": []}}), "x"
    )
    assert drawn.count("not known") == 1
    assert "2026-01" in drawn


def test_the_same_facts_give_the_same_page_and_files(facts: Facts, page: str, tmp_path: Path) -> None:
    card.write(facts, tmp_path / "a" / "churn.html")
    assert (tmp_path / "a" / "churn.html").read_text() == page
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        *(f"churn-{name}.svg" for name in ("effects", "gain", "months", "reliability")),
        "churn.html",
    ]


def test_held_out_figures_are_those_of_the_rows(rows: pd.DataFrame, facts: Facts) -> None:
    found = facts.held_out()
    probability, happened = rows["probability"].to_numpy(), rows["happened"].to_numpy(float)
    from sklearn.metrics import log_loss as plain
    from sklearn.metrics import roc_auc_score

    assert found[POOLED, "model", "auc"].value == pytest.approx(roc_auc_score(happened, probability))
    assert found[POOLED, "model", "log_loss"].value == pytest.approx(plain(happened, probability))
    parts = np.array_split(np.argsort(probability, kind="stable"), 10)
    distances = [len(part) * abs(probability[part].mean() - happened[part].mean()) for part in parts]
    assert found[POOLED, "model", "ece"].value == pytest.approx(sum(distances) / len(rows))
    top = np.argsort(-probability, kind="stable")[: round(0.2 * len(rows))]
    assert found[POOLED, "model", "gain_20"].value == pytest.approx(
        happened[top].sum() / happened.sum(), abs=0.03
    )
    assert found[POOLED, "model", "lift_20"].value == pytest.approx(
        5 * found[POOLED, "model", "gain_20"].value
    )
    low, high = found[POOLED, "model", "auc"].low, found[POOLED, "model", "auc"].high
    assert low is not None
    assert high is not None
    assert low < found[POOLED, "model", "auc"].value < high
    sizes = [found[f"tier: {tier}", "observed", "churn_rate"].rows for tier in ("A", "B & <C>")]
    assert sum(sizes) == len(rows)


def test_intervals_draw_accounts_and_not_rows(rows: pd.DataFrame) -> None:
    params = params_of("churn")
    once_each = next(iter(pooled(CHURN, rows, 90, params)))
    ten_times = pd.concat([rows] * 10, ignore_index=True)
    again = next(iter(pooled(CHURN, ten_times, 90, params)))
    assert (again.low, again.high) == (once_each.low, once_each.high)


def test_a_feature_that_can_only_raise_the_risk_has_a_rising_effect(facts: Facts) -> None:
    ways = {one.name: one.direction for one in CHURN.features}
    directed = [name for name in facts.effects if ways[name]]
    assert directed
    for name in directed:
        means = [mean for _, mean in facts.effects[name]]
        assert (np.diff(means) * ways[name] >= -1e-12).all(), name


def test_perfect_and_useless_probabilities_have_the_log_loss_and_error_they_must() -> None:
    happened = np.array([1.0, 0.0] * 50)
    assert log_loss(happened, happened, once(100))[0] == pytest.approx(0, abs=1e-5)
    assert log_loss(np.full(100, 0.5), happened, once(100))[0] == pytest.approx(np.log(2))
    assert ece(1)(np.full(100, 0.8), happened, once(100))[0] == pytest.approx(0.3)


def test_a_model_whose_training_was_cut_off_before_its_card_gets_it_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [SimpleNamespace(model_id=name) for name in ("churn_a", "churn_b")]
    monkeypatch.setattr(card, "connect", lambda role: nullcontext())
    monkeypatch.setattr(card.registry, "all_models", lambda connection: known)
    monkeypatch.setattr(card, "write_card", lambda model_id, page: page.write_text(model_id) and page)
    (tmp_path / "churn_a.html").write_text("as it was")
    assert card.write_missing_cards(tmp_path) == [tmp_path / "churn_b.html"]
    assert (tmp_path / "churn_a.html").read_text() == "as it was"
    assert card.write_missing_cards(tmp_path) == []


def test_a_training_writes_the_cards_of_the_models_that_score_the_date_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drift, decisions and evaluations came since; a model that scores no more keeps the card it has."""
    scoring = {"churn": SimpleNamespace(model_id="churn_b")}
    for name in ("churn_a", "churn_b"):
        (tmp_path / f"{name}.html").write_text("as it was")
    monkeypatch.setattr(due, "connect", lambda role: nullcontext())
    monkeypatch.setattr(due, "champion_on", lambda connection, model, as_of: scoring.get(model))
    monkeypatch.setattr(due, "write_card", lambda model_id, page: page.write_text(model_id) and page)
    monkeypatch.setattr(due, "write_missing_cards", lambda cards: [])
    monkeypatch.setattr(due, "write_missing_cluster_cards", lambda cards: [])
    monkeypatch.setattr(due, "fit_clusters_if_due", lambda as_of: [])
    monkeypatch.setattr(due, "fit_recommendations_if_due", lambda as_of: None)
    monkeypatch.setattr(due, "settle_all", lambda as_of: [])
    due.fit_all_due(date(2026, 6, 30), tmp_path)
    assert (tmp_path / "churn_b.html").read_text() == "as it was"
    monkeypatch.setattr(due, "settle_all", lambda as_of: ["upsell_c"])
    due.fit_all_due(date(2026, 6, 30), tmp_path)
    assert (tmp_path / "churn_b.html").read_text() == "churn_b"
    assert (tmp_path / "churn_a.html").read_text() == "as it was"
