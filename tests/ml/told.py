"""Tables of the docs whose figures a test measures: it makes the table anew and sets it beside the page."""

import re
from pathlib import Path

UNITS = 5
"""Of the last decimal place told, by which a figure may lie off: libraries and machines round otherwise."""
WHOLE = 1
"""What a whole number may lie off by."""


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table as the lines of a page."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def off(measured: list[str], page: Path) -> list[str]:
    """Return each row of a table that the page tells otherwise than measured, in words; raises where it has no such table.

    The page's table has the same head, and rows of the same names in the same order.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    print("\n".join(measured))  # what the page is to say
    assert measured[0] in lines, f"{page.name} has no table with the head {measured[0]}"
    at = lines.index(measured[0])
    told = lines[at : at + len(measured)]
    assert not lines[at + len(measured)].startswith("|"), f"{page.name} has rows that nobody measures"
    return [
        f"told {one!r}, measured {other!r}"
        for one, other in zip(told[2:], measured[2:], strict=True)
        if not _same(one, other)
    ]


def _same(told: str, measured: str) -> bool:
    (name, *cells), (other_name, *other_cells) = (line.strip("| ").split(" | ") for line in (told, measured))
    numbers, others = (_numbers(" | ".join(of)) for of in (cells, other_cells))
    return name == other_name and len(numbers) == len(others) and all(
        abs(one - other) <= (UNITS * 10.0**-places if places else WHOLE) + 1e-9
        for (one, places), (other, _) in zip(numbers, others, strict=True)
    )  # fmt: skip


def _numbers(text: str) -> list[tuple[float, int]]:
    """Return each number of a text with its decimal places."""
    found = re.findall(r"[−+]?\d[\d,]*(?:\.\d+)?", text)
    plain = [one.replace("−", "-").replace(",", "") for one in found]
    return [(float(one), len(one.partition(".")[2])) for one in plain]
