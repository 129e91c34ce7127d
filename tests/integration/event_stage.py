"""Event files written by a test, and what a load made of them."""

import json
from datetime import date
from pathlib import Path

from include.sources.config import Sources
from include.sources.loads import Load
from include.sources.row_sources import Behavior, Company
from tests.conftest import Warehouse

DAY_1, DAY_2, DAY_3 = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)
COLUMNS = {"customer_id": "who", "event_name": "what", "feature": "detail", "event_at": "placed"}
CURRENT = (
    "select event_id, customer_id, event_name, to_char(event_at at time zone 'Asia/Shanghai', 'DD HH24:MI') "
    "from raw_files.events where (file_id, source_row) not in "
    "(select file_id, source_row from raw_files.superseded_events) order by event_at, event_id, customer_id"
)


def sources(file: Path, ids: bool = True, **changes: object) -> Sources:
    columns = COLUMNS | ({"event_id": "id"} if ids else {})
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
    given = {"file": str(file), "columns": columns, **changes}
    return Sources(company=company, behavior=Behavior.model_validate(given))


def write(path: Path, *events: str) -> None:
    """Write events as `id,who,what,day hour:minute` of March 2024."""
    lines = [event.split(",") for event in events]
    rows = [f"{name},{who},{what},,2024-03-{at}:00\n" for name, who, what, at in lines]
    path.write_text("id,who,what,detail,placed\n" + "".join(rows))


def opened(load: Load | None) -> list[str]:
    assert load is not None
    return [Path(path).name for path in load.files]


def queued(warehouse: Warehouse, load: Load | None) -> list[tuple]:
    assert load is not None
    return warehouse.rows(
        "select customer_id, usage_date from intermediate.usage_day_queue where load_id = %s order by 1, 2",
        load.load_id,
    )


def write_json(path: Path, *events: dict) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
