"""The parts a model card is written from: tables, drawings, numbers as people read them."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ml import registry
from ml.judge import Figure
from ml.phrases import plain_name

NOTES = {
    "error": "A calibration error is never below 0 and counts what chance does to each part. Each resample adds chance of "
    "its own, so its interval lies too high and may not hold the figure: read the parts below.",
    "cut": "The axes of these panels do not start at 0: read the numbers.",
    "blanks": "Where Brier is blank, no probability could be told on that month-end: calibration is learned on earlier "
    "held-out month-ends, and the outcomes of none were known yet (or nothing held there).",
}
"""What a reader may stumble over, said beside it."""
MEANINGS = {
    "AUC": "of two accounts, one that the outcome came true of and one that it did not, how often the model puts the first "
    "higher: 1 is always, 0.5 is a coin.",
    "PR-AUC": "the mean share of hits on the way down the ranking. A coin reaches the share that came true.",
    "Brier": "the mean squared distance of the probability and what happened (0 or 1): the lower the better. Telling "
    "everybody the share that came true reaches share × (1 − share).",
    "log loss": "the lower the better; being sure and wrong costs most.",
    "calibration error (ECE)": "the mean distance of what was told and what came true, over ten equally large parts.",
    "lift": "among the share ranked highest, how many times as often it came true as among all.",
    "gain": "the share of all it came true of that is among the share ranked highest.",
    "in brackets": "where the figure lies in 95 of 100 resamples of the accounts. An interval of a difference that holds 0: "
    "the two cannot be told apart.",
}
"""What the figures of a card say, for who is no statistician."""


class Html(str):
    """Text that is HTML already: a table writes it as it is."""


def feature(name: str) -> Html:
    """Return a feature as a reader knows it, its column in small type."""
    plain = plain_name(name)
    return Html(escape(plain) if plain == name else f"{escape(plain)} <small>{escape(name)}</small>")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, head_column: bool = False) -> str:
    """Return a table of cells, escaped but for Html; with `head_column` the first of each row is its heading."""
    written = ["<table>"]
    if heads:
        written.append("<tr>" + "".join(f"<th>{_cell(head)}</th>" for head in heads) + "</tr>")
    for row in rows:
        cells = [_cell(cell) for cell in row]
        first = f"<th>{cells[0]}</th>" if head_column else f"<td>{cells[0]}</td>"
        written.append("<tr>" + first + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>")
    return "\n".join([*written, "</table>"])


def _cell(content: object) -> str:
    return content if isinstance(content, Html) else escape(str(content))


def note(name: str) -> str:
    """Return one of NOTES as a paragraph."""
    return f"<p class=note>{NOTES[name]}</p>"


def meanings() -> str:
    """Return what the figures say, shown when its title is clicked."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in MEANINGS.items())
    return folded("What the figures mean", f"<dl>{rows}</dl>")


def folded(title: str, inner: str) -> str:
    """Return a part that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{inner}\n</details>"


def level_told(found: registry.Model) -> str:
    """Return whose level a model's probabilities have, and why, in words."""
    level = found.parameters.get("level")
    whole = f"that of {found.window_from} to {found.window_to} as a whole"
    if level is None:
        return whole
    if level["is_foretold"]:
        months = sorted(level["by_month_end"])
        learned = f"what season, trend and working days did on {months[0]} to {months[-1]}"
        return f"that of the date, from {learned}: {level['why']}"
    return f"{whole}, whatever the season: {level['why']}"


def drawing(drawn: Mapping[str, str], name: str) -> str:
    """Return a drawing by its name; nothing where there is none."""
    return f"<figure>{drawn[name]}</figure>" if name in drawn else ""


def side_by_side(drawn: Mapping[str, str], *names: str) -> str:
    """Return drawings beside each other."""
    return "<div class=pair>" + "".join(drawing(drawn, name) for name in names) + "</div>"


def ranged(figure: Figure | None, *, percent: bool = False) -> str:
    """Return a figure with its interval, where it has one; nothing where there is none."""
    if figure is None:
        return ""
    show = shown_percent if percent else number
    if figure.low is None or figure.high is None:
        return show(figure.value)
    return f"{show(figure.value)} ({show(figure.low)} to {show(figure.high)})"


def shown_percent(value: float) -> str:
    """Return a share as a percentage."""
    return f"{value:.1%}"


def number(value: float | None) -> str:
    """Return a number with as many digits as people read; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def exact(value: float | None) -> str:
    """Return a number as it is kept; nothing where there is none."""
    return "" if value is None else repr(float(value))
