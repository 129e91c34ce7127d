"""docs/contracts/roles.md tells exactly what include/warehouse/roles.py grants."""

import re

from include.settings import PROJECT_DIR
from include.warehouse.publish import READERS
from include.warehouse.roles import DEFAULT_READERS, SCHEMA_GRANTS, TABLE_GRANTS

CONTRACT = PROJECT_DIR / "docs" / "contracts" / "roles.md"
ROW = re.compile(r"^\| (\w+) \| `([\w.*]+)`(?: by the (\w+))? \| ([\w, ]+) \| (.+) \|$", re.MULTILINE)


def documented() -> dict[tuple[str, str, str], tuple[str, ...]]:
    return {
        (role, on, creator): tuple(may.split(", "))
        for role, on, creator, may, _ in ROW.findall(CONTRACT.read_text())
    }


def granted() -> dict[tuple[str, str, str], tuple[str, ...]]:
    matrix = {(role, f"{schema}.*", ""): may for (role, schema), may in SCHEMA_GRANTS.items()}
    matrix |= {(role, table, ""): may for (role, table), may in TABLE_GRANTS.items()}
    for (creator, schema), readers in DEFAULT_READERS.items():
        matrix |= {(reader, f"{schema}.*", creator): ("select",) for reader in readers}
    return matrix


def test_the_documented_matrix_is_the_granted_one() -> None:
    assert documented() == granted()


def test_every_grant_is_told_once_and_has_a_reason() -> None:
    rows = ROW.findall(CONTRACT.read_text())
    assert len(rows) == len(granted())
    assert all(len(why) > 10 for *_, why in rows)


def test_the_readers_of_the_published_views_are_told() -> None:
    text = " ".join(CONTRACT.read_text().split())
    assert f"to {READERS[0]}, {READERS[1]} and {READERS[2]} when it first makes it" in text
