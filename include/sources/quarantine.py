"""What lies in quarantine: counted by reason, and the rows themselves, for a terminal."""

import unicodedata
from datetime import date
from typing import Any

from psycopg.rows import dict_row

from include.warehouse.connect import connect

FILTERS = (
    "(%(source)s::text is null or rows.source = %(source)s) "
    "and (%(entity)s::text is null or rows.entity = %(entity)s) "
    "and (%(reason)s::text is null or reason = %(reason)s) "
    "and (%(as_of)s::date is null or %(as_of)s between first.as_of_date and last.as_of_date) "
)
LOADS = (
    "from quarantine.rows as rows inner join audit.loads as first on first_load_id = first.load_id "
    "inner join audit.loads as last on last_load_id = last.load_id "
)
COUNTS = (
    "select rows.source, rows.entity, reason, count(*) filter (where resolved_load_id is null) as open, "
    "count(*) filter (where resolved_load_id is not null) as resolved, "
    "min(first.as_of_date) as first_as_of_date, "
    "(array_agg(first_load_id order by first.load_seq))[1] as first_load_id, "
    "max(last.as_of_date) as last_as_of_date, "
    "(array_agg(last_load_id order by last.load_seq desc))[1] as last_load_id "
    + LOADS
    + "where "
    + FILTERS
    + "group by rows.source, rows.entity, reason order by rows.source, rows.entity, open desc, resolved desc, reason"
)
ROWS = (
    "select rows.source, rows.entity, reason, source_file, source_row, original, first_load_id, "
    "first.as_of_date as first_as_of_date, last_load_id, last.as_of_date as last_as_of_date, resolved_load_id, "
    "resolved_at, settled.status = 'replayed' as is_replayed, settled.as_of_date as resolved_as_of_date "
    + LOADS
    + "left join audit.loads as settled on resolved_load_id = settled.load_id where "
    + FILTERS
    + "and (%(all)s or resolved_load_id is null) "
    "order by rows.source, rows.entity, reason, source_file nulls last, source_row, row_hash limit %(limit)s"
)


def list_refused(
    source: str | None = None, entity: str | None = None, reason: str | None = None, as_of: date | None = None
) -> list[dict[str, Any]]:
    """Return one row per source, entity and reason: rows open and resolved, first and last load and their dates.

    With `as_of`, only rows that a load of that date, or loads around it, refused.
    """
    return _read(COUNTS, {"source": source, "entity": entity, "reason": reason, "as_of": as_of})


def show_refused(
    source: str | None = None,
    entity: str | None = None,
    reason: str | None = None,
    limit: int | None = None,
    resolved_too: bool = False,
) -> list[dict[str, Any]]:
    """Return refused rows as they stood, with their place, reason and loads; the open ones, or all."""
    given = {"source": source, "entity": entity, "reason": reason, "as_of": None}
    return _read(ROWS, given | {"limit": limit, "all": resolved_too})


def _read(query: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    with connect("auditor") as connection:
        return connection.cursor(row_factory=dict_row).execute(query, given).fetchall()


def counts_in_lines(counts: list[dict[str, Any]]) -> list[str]:
    """Return the counts as an aligned table."""
    titles = ("source", "reason", "open", "resolved", "first", "load", "last", "load")
    cells = [
        (
            f"{row['source']}.{row['entity']}",
            row["reason"],
            f"{row['open']:,}",
            f"{row['resolved']:,}",
            str(row["first_as_of_date"]),
            str(row["first_load_id"])[:8],
            str(row["last_as_of_date"]),
            str(row["last_load_id"])[:8],
        )
        for row in counts
    ]
    widths = [max(len(row[place]) for row in (titles, *cells)) for place in range(len(titles))]
    return [
        "  ".join(
            cell.rjust(width) if place in (2, 3) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (titles, *cells)
    ]


def row_in_lines(row: dict[str, Any], width: int | None) -> list[str]:
    """Return a refused row as lines: where and why, then one line per column, cut off at `width` cells (None: whole)."""
    place = "" if row["source_file"] is None else f"  {row['source_file']}"
    place += "" if row["source_row"] is None else f" row {row['source_row']}"
    seen = f"refused from {row['first_as_of_date']} to {row['last_as_of_date']}"
    if row["resolved_load_id"] is not None:
        how = "replayed" if row["is_replayed"] else "no longer refused"
        seen += f", {how} as of {row['resolved_as_of_date']} (load {str(row['resolved_load_id'])[:8]})"
    shown = [_cut(_plain(f"{row['source']}.{row['entity']}{place}: {row['reason']} ({seen})"), width)]
    names = {name: _plain(name) for name in row["original"]}
    widest = min(max((_cells(name) for name in names.values()), default=0), 30)
    for name, value in row["original"].items():
        label = _cut(names[name], widest)
        text = "-" if value is None else _plain(value if isinstance(value, str) else str(value))
        shown.append(_cut(f"    {label}{' ' * (widest - _cells(label))}  {text}", width))
    return shown


def _plain(text: str) -> str:
    """Return a text without line breaks and control characters: a bad row may hold anything, and a terminal obeys."""
    return "".join(
        character
        if unicodedata.category(character)[0] != "C"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int | None) -> str:
    if width is None or _cells(text) <= width:
        return text
    kept, left = "", width - 1
    for character in text:
        left -= _width(character)
        if left < 0:
            break
        kept += character
    return f"{kept}…"
