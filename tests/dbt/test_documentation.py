"""The project says of itself what everything is, who answers for it and who uses it, and its pictures say the same."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from docs.generators import docs, exposures, lineage
from include.dbt import DBT_PROJECT, parsed_project, profile_environment
from include.settings import PROJECT_DIR, get_settings
from tests.conftest import Warehouse

PUBLISHED = {path.stem for path in (DBT_PROJECT / "models" / "published").rglob("*.sql")}


@pytest.fixture(scope="module")
def manifest(module_warehouse: Warehouse) -> Iterator[Any]:
    with profile_environment(module_warehouse.owner_url):
        yield parsed_project()


def test_every_model_seed_and_source_and_each_of_its_columns_is_described(manifest: Any) -> None:
    nodes = [node for node in manifest.nodes.values() if node.resource_type in ("model", "seed")]
    assert len(nodes) > 60
    silent = [node.name for node in [*nodes, *manifest.sources.values()] if not node.description.strip()]
    silent += [
        f"{node.name}.{column.name}"
        for node in nodes
        for column in node.columns.values()
        if not column.description.strip()
    ]
    assert silent == []
    assert [node.name for node in nodes if not node.columns] == []


def test_every_model_and_seed_has_an_owner_who_is_a_role(manifest: Any) -> None:
    owners = {group.name: group.owner.name for group in manifest.groups.values()}
    assert all(owners.values())
    nodes = [node for node in manifest.nodes.values() if node.resource_type in ("model", "seed")]
    assert [node.name for node in nodes if node.config.group not in owners] == []
    assert {node.config.group for node in nodes} == set(owners)


def test_every_published_table_is_used_by_somebody_who_is_named(manifest: Any) -> None:
    assert exposures.EXPOSURES.read_text(encoding="utf-8") == exposures.generated(), "run `make generate`"
    used = {parent for exposure in manifest.exposures.values() for parent in exposure.depends_on.nodes}
    assert {f"model.stratum.{name}" for name in PUBLISHED} <= used
    assert {exposure.type for exposure in manifest.exposures.values()} == {"dashboard", "application", "ml"}
    for exposure in manifest.exposures.values():
        assert exposure.owner.name
        assert exposure.description.endswith(".")


def test_the_lineage_picture_is_that_of_the_project(manifest: Any) -> None:
    picture = lineage.PICTURE.read_text(encoding="utf-8")
    assert picture == lineage.generated(manifest), "run `make generate`"
    for name in PUBLISHED:
        assert f">{name.removeprefix('published_')}</text>" in picture
    for page in ("README.md", "docs/architecture.md"):
        assert "lineage.svg" in (PROJECT_DIR / page).read_text(encoding="utf-8")


def test_the_documentation_is_one_page_that_needs_no_server_and_no_network(manifest: Any) -> None:
    page = docs.write_docs(manifest)
    assert page == get_settings().home / "dbt-docs" / "index.html"
    text = page.read_text(encoding="utf-8")
    assert all(f"model.stratum.{name}" in text for name in PUBLISHED)
    assert not re.search(r"""<(?:script|link|img)\b[^>]*(?:src|href)=["']https?://""", text)
    assert all(unique_id in text for unique_id in manifest.exposures)
