"""The contract of records is written twice, in code and in docs/contracts/records.md: neither changes without the other."""

import re

import pytest

from include.settings import PROJECT_DIR
from include.sources.record_contract import ENTITIES, Entity

TEXT = (PROJECT_DIR / "docs" / "contracts" / "records.md").read_text(encoding="utf-8")
TYPES = {
    "text": "text",
    "instant": "timestamptz",
    "day": "date",
    "number": "numeric(18,4)",
    "money": "numeric(18,2)",
    "flag": "boolean",
    "currency": "char(3)",
}


def section(entity: Entity) -> str:
    return re.split(r"^##", TEXT.partition(f"\n### {entity.name}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("entity", ENTITIES.values(), ids=list(ENTITIES))
def test_the_table_of_an_entity_is_its_contract(entity: Entity) -> None:
    rows = [line.strip("| ").split(" | ") for line in section(entity).splitlines() if line.startswith("| ")]
    expected = [
        [name, TYPES[each.kind], each.unit or "–", "no" if each.required else "yes", each.meaning]
        for name, each in entity.columns.items()
    ]
    assert rows[1:] == expected


@pytest.mark.parametrize("entity", ENTITIES.values(), ids=list(ENTITIES))
def test_the_text_of_an_entity_names_its_key_its_dates_and_its_reasons(entity: Entity) -> None:
    text = section(entity)
    assert f"Key: {', '.join(f'`{name}`' for name in entity.key)}." in text
    assert ("A record of the CRM." in text) == entity.is_crm
    for name in (entity.since or "modified_at", *entity.created, *entity.steps):
        assert f"`{name}`" in text
    assert re.findall(r"`(\w+)`", text.partition("Refused besides:")[2]) == [
        reason for reason, _ in entity.refused
    ]


@pytest.mark.parametrize("entity", ENTITIES.values(), ids=list(ENTITIES))
def test_what_a_contract_refers_to_are_its_columns(entity: Entity) -> None:
    names = {
        *entity.key,
        *entity.created,
        *entity.steps,
        *(name for each in entity.steps.values() for name in each),
    }
    names |= {name for by in entity.others.values() for name in by}
    names |= {entity.since, entity.customer, entity.owner[1] if entity.owner else None} - {None}
    assert names <= set(entity.columns)
    assert bool(entity.since) != bool(entity.created)
    assert "currency" in entity.columns or not entity.money
