"""What tests of the sync begin with: a warehouse of a module's own, systems that can be told, one that was told all."""

import random
from collections.abc import Callable, Iterator

import httpx
import pytest

from include.sources import salesforce_api
from include.sync import hubspot_api, trickle
from include.sync.target import Answer, Row, Target
from include.sync.targets import webhook
from include.sync.targets.hubspot import HubSpotTarget
from include.sync.targets.salesforce import SalesforceTarget
from include.sync.targets.webhook import WebhookTarget
from include.warehouse.embedded import Cluster
from tests.conftest import Warehouse, fresh_warehouse
from tests.integration.create_stage import CreateStage
from tests.integration.sync_proof import TOLD, Published, change_some, proving_ground
from tests.integration.target_stage import SHORT_S, Place, Places, places, small_batches


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
def reached(systems: Places, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Place]:
    """Kind of target → its system, which connections lead to, told in small batches."""

    def reach(kind: str) -> Place:
        place = systems.of(kind)
        place.reach(monkeypatch)
        small_batches(monkeypatch, kind)
        return place

    return reach


@pytest.fixture
def stage_of(
    warehouse: Warehouse, systems: Places, reached: Callable[[str], Place]
) -> Callable[[str], CreateStage]:
    """Kind of target → a stage on which records are made in it."""
    return lambda kind: CreateStage(warehouse, reached(kind), systems.time)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an answer up after a second, and one that trickles after half of one."""
    monkeypatch.setattr(hubspot_api, "TIMEOUT_S", (5.0, SHORT_S))
    monkeypatch.setattr(salesforce_api, "TIMEOUT_S", (5.0, SHORT_S))
    monkeypatch.setattr(webhook, "TIMEOUT", httpx.Timeout(5.0, read=SHORT_S))
    monkeypatch.setattr(trickle, "WHOLE_ANSWER_S", SHORT_S / 2)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each write without an answer that a target was asked about."""
    asked: list[int] = []
    for target in (HubSpotTarget, SalesforceTarget, WebhookTarget):

        def settle(
            self: Target, rows: list[Row], job_id: str | None, original: Callable[..., Answer] = target.settle
        ) -> Answer:
            asked.append(len(rows))
            return original(self, rows, job_id)

        monkeypatch.setattr(target, "settle", settle)
    return asked
