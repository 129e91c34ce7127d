"""What tests of the sync begin with: a warehouse of a module's own, systems that can be told, one that was told all."""

import random
from collections.abc import Callable, Iterator

import pytest

from include.warehouse.embedded import Cluster
from tests.conftest import Warehouse, fresh_warehouse
from tests.integration.create_stage import CreateStage
from tests.integration.sync_proof import TOLD, Published, change_some, proving_ground
from tests.integration.target_stage import Places, places, small_batches


@pytest.fixture(scope="module")
def ground(
    cluster: Cluster, bare_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    """A warehouse and a CRM of a module's tests."""
    folder = tmp_path_factory.mktemp("crm")
    with proving_ground("hubspot", cluster, bare_template, folder, TOLD) as published:
        yield published


@pytest.fixture
def published(ground: Published) -> Published:
    """All accounts told: tier A, revenue 1, no next action."""
    ground.reset()
    change_some(ground, random.Random(1), 0.0, TOLD)
    assert ground.sync().sent == TOLD
    return ground


@pytest.fixture(scope="module")
def module_warehouse(
    cluster: Cluster, bare_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    """A migrated warehouse for all tests of a module."""
    with fresh_warehouse(cluster, bare_template, tmp_path_factory.mktemp("home")) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Each system that can be told, on this machine."""
    with places(tmp_path_factory.mktemp("systems")) as started:
        yield started


@pytest.fixture
def stage_of(
    warehouse: Warehouse, systems: Places, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], CreateStage]:
    """Kind of target → a stage on which records are made in it."""

    def stage(kind: str) -> CreateStage:
        place = systems.of(kind)
        place.reach(monkeypatch)
        small_batches(monkeypatch, kind)
        return CreateStage(warehouse, place, systems.time)

    return stage
