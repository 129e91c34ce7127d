"""Each brake, just under its limit and just over it, and what it says."""

import dataclasses

import pytest

from include.sync.brakes import Counts, reasons_to_hold
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
)
DEFAULT = Brakes()
OFF = Brakes(
    first_sync=False, max_shrink=None, max_tier_changes=None, max_score_moves=None, max_creations=None
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
    ],
)
def test_each_brake_lets_its_limit_pass_and_holds_one_more(under: dict, over: dict, brake: str) -> None:
    assert held(**under) == []
    assert held(**over) == [brake]
    assert held(OFF, **over) == []


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
    counts = dataclasses.replace(CALM, published=700, tiers_changed=500, scores_moved=900)
    reasons = reasons_to_hold(Brakes(), counts)
    assert [(reason.brake, reason.figure, reason.limit) for reason in reasons] == [
        ("shrunken_source", 0.3, 0.2),
        ("tier_changes", 0.5, 0.3),
        ("score_moves", 0.9, 0.5),
    ]
    for reason in reasons:
        assert f"{reason.figure:.1%}" in reason.says
        assert f"{reason.limit:.1%}" in reason.says
        assert "approve or reject" in reason.says
