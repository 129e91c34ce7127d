"""The fault matrix: what becomes of every row where a target fails in each way, by the target's own log of writes."""

from collections.abc import Callable
from itertools import product

import pytest

from include.errors import StratumError
from include.sources import salesforce_api
from tests.conftest import Warehouse
from tests.integration.fault_cells import FAULTS, FIRST, GUILTY, IMPOSSIBLE, Cell, cells, matrix
from tests.integration.sync_stage import prepare
from tests.integration.target_stage import KINDS, ROWS, Place, Places, Stage, make_fields


@pytest.fixture(scope="module")
def warehouse(module_warehouse: Warehouse) -> Warehouse:
    prepare(module_warehouse)
    return module_warehouse


@pytest.mark.parametrize("makes", [False, True], ids=["update", "creation"])
def test_every_cell_of_the_matrix_has_an_outcome_or_a_reason_and_none_has_both(makes: bool) -> None:
    stated = matrix(makes)
    assert set(stated) | set(IMPOSSIBLE) == set(product(FAULTS, KINDS))
    assert set(stated) & set(IMPOSSIBLE) == set()
    assert all(stated.values())
    assert all(IMPOSSIBLE.values())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("kind", "cell"),
    # Of a Bulk job, each step can be struck: the first one named is the everyday proof.
    cells(makes=False, everyday=lambda kind, fault, cell, place: place == 0),
)
def test_a_fault_has_its_stated_outcome(
    warehouse: Warehouse,
    systems: Places,
    reached: Callable[[str], Place],
    settled: list[int],
    kind: str,
    cell: Cell,
) -> None:
    place = reached(kind)
    stage = Stage(warehouse, place, systems.time)
    make_fields(stage)
    stage.time.slept.clear()
    cell.strike(place, stage.records[GUILTY])

    first = stage.sync(max_tries=cell.max_tries)
    cell.assert_struck(place, stage.records[GUILTY])
    assert (first.sent, first.reasons) == (cell.sent, cell.failed or {})
    assert stage.dead() == cell.dead
    cell.assert_waited(kind, stage.time.slept)

    if cell.is_lost:  # a job that was made without our knowing its id does nothing: another one is made
        assert settled == ([] if cell.step == "create_ingest" else [FIRST[kind]])

    place.mend()
    assert stage.replay() == cell.dead
    second = stage.sync()
    assert (second.sent, second.failed, second.held) == (cell.then_sent, 0, 0)
    third = stage.sync()
    assert (third.sent, third.unchanged, third.calls) == (0, ROWS, 0)

    # By the target's own log: every row was applied, once, and with nothing but what was published.
    assert stage.told() == {record: [f"T{stage.mark}"] for record in stage.records}
    assert stage.open_attempts() == 0
    tier = place.fields["tier"]
    published = dict.fromkeys(stage.records, f"T{stage.mark}")
    assert {each: values[tier] for each, values in stage.confirmed().items()} == published


def test_a_salesforce_login_that_is_refused_while_a_sync_runs_sends_nothing_and_blames_no_row(
    warehouse: Warehouse, systems: Places, reached: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = reached("collections")
    stage = Stage(warehouse, place, systems.time)
    make_fields(stage)
    place.faults(expire_session=1, expire_session_at="collection_update")
    monkeypatch.setattr(
        salesforce_api.SalesforceApi, "_log_in", lambda *_: (_ for _ in ()).throw(StratumError("refused"))
    )
    result = stage.sync()
    assert (result.sent, result.reasons) == (0, {"not_sent": ROWS})
    assert stage.told() == {record: [] for record in stage.records}
    assert warehouse.value("select count(*) from sync.failures") == 0
