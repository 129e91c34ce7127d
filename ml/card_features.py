"""The part of a model card on what the model looks at: each feature in plain words, its weight, its effect."""

from collections.abc import Mapping, Sequence

from ml import registry
from ml.card_parts import drawing, feature, folded, number, table
from ml.features import Kind
from ml.phrases import plain_name, written
from ml.plots import Caption, Point
from ml.targets import Target

_UNITS: dict[Kind, str] = {"days": "days", "count": "number", "score": "of 10", "flag": "0: no, 1: yes"}
"""What the axis of a feature counts; shares are told in percent, amounts in the currency."""


def captions(
    found: registry.Model, effects: Mapping[str, Sequence[Point]], currency: str
) -> dict[str, Caption]:
    """Return how the panel of each feature's effect is called, its unit, and whether that is a share."""
    kinds = _kinds(found)
    return {name: _caption(name, kinds.get(name), currency) for name in effects}


def looked_at(
    found: registry.Model,
    importances: Mapping[str, float],
    effects: Mapping[str, Sequence[Point]],
    target: Target | None,
    currency: str,
    drawn: Mapping[str, str],
) -> list[str]:
    """Return the section of the card: the effects of the features that weigh most, and the table of all."""
    told = ["<h2>What it looks at</h2>"]
    kinds = _kinds(found)
    if effects:
        told += [
            "<p>Below, the mean probability if every account of the newest training date had a value, all else as it "
            "is. It shows what the model does, not what would change an account. All panels have one scale, which starts "
            "at 0.</p>",
            drawing(drawn, "effects"),
            folded(
                "The points",
                table(
                    ("feature", "value", "mean probability"),
                    [
                        (feature(name), _value(x, kinds.get(name)), f"{y:.1%}")
                        for name, points in effects.items()
                        for x, y in points
                    ],
                ),
            ),
        ]
    ways = {one.name: one.direction for one in target.features} if target else {}
    said = {1: "can only raise it", -1: "can only lower it", 0: "the data decide"}
    contract = {one["name"]: one for one in found.features}
    names = [name for name in importances if name in contract]
    names += [name for name in contract if name not in importances]
    rows = [
        (
            feature(name),
            _kind_told(contract[name]["kind"], currency),
            "yes" if contract[name]["used"] else "no: it hardly differs between accounts",
            said[ways[name]] if name in ways else "no feature of this version",
            number(importances.get(name)),
            _value(contract[name].get("typical_happened"), contract[name]["kind"]),
            _value(contract[name].get("typical_not_happened"), contract[name]["kind"]),
        )
        for name in names
    ]
    heads = (
        "feature", "kind", "used", "more of it", "weight (log-odds)", "median where it came true", "of the others",
    )  # fmt: skip
    return [*told, table(heads, rows)]


def _kinds(found: registry.Model) -> dict[str, Kind]:
    return {one["name"]: one["kind"] for one in found.features}


def _caption(name: str, kind: Kind | None, currency: str) -> Caption:
    unit = currency if kind == "amount" else _UNITS.get(kind, "") if kind is not None else ""
    return plain_name(name), unit, kind == "share"


def _kind_told(kind: Kind, currency: str) -> str:
    return f"{kind}, {currency}" if kind == "amount" else kind


def _value(value: float | None, kind: Kind | None) -> str:
    """Return a value as the reasons write it: `1`, `84 days`, `12 %`; nothing where there is none."""
    if value is None:
        return ""
    return number(value) if kind is None else written(value, kind)
