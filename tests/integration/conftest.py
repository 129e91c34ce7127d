"""A sync that has told all there is: what reading back, saving and rebuilding its books begins with."""

import random
from collections.abc import Iterator

import pytest

from include.warehouse.embedded import Cluster
from tests.integration.sync_proof import TOLD, Published, change_some, proving_ground


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
