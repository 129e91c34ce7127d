"""Each brake, just under its limit and just over it, and what it says."""

import dataclasses

import pytest

from include.sync.brakes import Counts, look, reasons_to_hold
from include.sync.mapping import Brakes

CALM = Counts(
    published=1000,
    published_before=1000,
    to_send=400,
    is_first=False,
    tiers_told=1000,
    tiers_changed=0,
    scores_told=1000,
    scores_moved=0,
    records_told=1000,
    cleared=0,
)
DEFAULT = Brakes()
OFF = Brakes(
    first_sync=False,
    max_shrink=None,
    max_tier_changes=None,
    max_score_moves=None,
    max_creations=None,
    max_removals=None,
    max_removals_count=None,
)


def held(brakes: Brakes = DEFAULT, **counts: object) -> list[str]:
    return [reason.brake for reason in reasons_to_hold(brakes, dataclasses.replace(CALM, **counts))]


def test_nothing_holds_a_sync_like_the_one_before() -> None:
    assert held() == []


@pytest.mark.parametrize(
    ("under", "over", "brake"),
    [
        ({"published": 1, "published_before": 1}, {"published": 0, "published_before": 1}, "empty_source"),
        ({"published": 800}, {"published": 799}, "shrunken_source"),
        ({"tiers_changed": 300}, {"tiers_changed": 301}, "tier_changes"),
        ({"scores_moved": 500}, {"scores_moved": 501}, "score_moves"),
        ({"is_first": True, "to_send": 0}, {"is_first": True, "to_send": 1}, "first_sync"),
        ({"to_create": 50}, {"to_create": 51}, "creations"),
        ({"cleared": 200}, {"cleared": 201}, "removals"),
        (
            {"cleared": 1000, "records_told": 9_000},
            {"cleared": 1001, "records_told": 9_000},
            "removals_count",
        ),
    ],
)
def test_each_brake_lets_its_limit_pass_and_holds_one_more(under: dict, over: dict, brake: str) -> None:
    assert held(**under) == []
    assert held(**over) == [brake]
    assert held(OFF, **over) == (
        ["empty_source"] if brake == "empty_source" else []
    )  # none at all always holds


def test_a_set_of_a_first_sync_may_be_of_any_size_but_empty() -> None:
    first = {"published_before": None, "is_first": True, "tiers_told": 0, "scores_told": 0}
    assert held(Brakes(first_sync=False), **first, published=1) == []
    assert held(Brakes(first_sync=False), **first, published=0) == ["empty_source"]


def test_an_empty_set_is_told_as_empty_and_not_as_shrunken_even_where_all_may_go() -> None:
    assert held(Brakes(max_shrink=1), published=0) == ["empty_source"]
    assert held(Brakes(max_shrink=1), published=1) == []


def test_a_grown_source_holds_nothing() -> None:
    assert held(Brakes(max_shrink=0), published=2000) == []


def test_all_brakes_that_speak_are_told_each_with_figure_limit_and_what_to_do() -> None:
    counts = dataclasses.replace(CALM, published=700, tiers_changed=500, scores_moved=900, cleared=400)
    reasons = reasons_to_hold(Brakes(), counts)
    assert [(reason.brake, reason.figure, reason.limit) for reason in reasons] == [
        ("shrunken_source", 0.3, 0.2),
        ("tier_changes", 0.5, 0.3),
        ("score_moves", 0.9, 0.5),
        ("removals", 0.4, 0.2),
    ]
    assert reasons[-1].says.startswith("fields of 400 of 1,000 records told before (40.0%) would be cleared")
    for reason in reasons:
        assert f"{reason.figure:.1%}" in reason.says
        assert f"{reason.limit:.1%}" in reason.says
        assert "approve or reject" in reason.says


def test_each_brake_is_told_with_figure_and_limit_also_where_it_lets_a_sync_pass() -> None:
    calm = [(brake.brake, brake.figure, brake.limit, brake.holds) for brake in look(DEFAULT, CALM)]
    assert calm == [
        ("shrunken_source", 0, 0.2, False),
        ("first_sync", 0, None, False),
        ("tier_changes", 0, 0.3, False),
        ("score_moves", 0, 0.5, False),
        ("creations", 0, 50, False),
        ("removals", 0, 0.2, False),
        ("removals_count", 0, 1000, False),
    ]
    assert not any("approve or reject" in brake.says for brake in look(DEFAULT, CALM))


def test_a_brake_without_a_figure_says_why() -> None:
    off = look(OFF, CALM)
    assert {(brake.figure, brake.limit, brake.holds) for brake in off} == {(None, None, False)}
    assert [brake.says for brake in off][:2] == ["switched off (max_shrink)", "switched off (first_sync)"]
    unknown = {"published_before": None, "tiers_told": 0, "scores_told": 0, "records_told": 0}
    first = {brake.brake: brake for brake in look(DEFAULT, dataclasses.replace(CALM, **unknown))}
    assert (first["shrunken_source"].figure, first["shrunken_source"].says) == (
        None,
        "no sync has finished before",
    )
    assert (first["tier_changes"].figure, first["tier_changes"].says) == (None, "no tier was told before")
    assert (first["removals"].figure, first["removals"].limit) == (None, 0.2)
