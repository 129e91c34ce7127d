"""The fault matrix of creation: what becomes of accounts without a record, counted in the target's own record."""

from collections.abc import Callable

import pytest

from include.sync.run import replay_dead_letters
from tests.conftest import Warehouse
from tests.integration.create_stage import CreateStage
from tests.integration.fault_cells import FIRST, GUILTY, Cell, cells
from tests.integration.sync_stage import prepare
from tests.integration.target_stage import ROWS


@pytest.fixture(scope="module")
def warehouse(module_warehouse: Warehouse) -> Warehouse:
    prepare(module_warehouse)
    return module_warehouse


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("kind", "cell"),
    # The everyday proof: a write that was done, and nobody was told.
    cells(makes=True, everyday=lambda kind, fault, cell, place: kind == "hubspot" and cell.is_lost),
)
def test_a_fault_has_its_stated_outcome_and_makes_no_second_record(
    stage_of: Callable[[str], CreateStage], settled: list[int], kind: str, cell: Cell
) -> None:
    stage = stage_of(kind)
    place, guilty = stage.place, stage.account(GUILTY)
    stage.publish(ROWS)
    before = stage.total()
    cell.strike(place, guilty)

    first = stage.sync(max_tries=cell.max_tries)
    cell.assert_struck(place, guilty)
    assert (first.sent, first.reasons) == (cell.sent, cell.failed or {})
    dead = stage.warehouse.value("select count(*) from sync.dead_letters")
    assert dead == cell.dead
    cell.assert_waited(kind, stage.time.slept)
    if cell.is_lost:  # a job that was made without our knowing its id does nothing: another one is made
        assert settled == ([] if cell.step == "create_ingest" else [FIRST[kind]])
    # What is made is what the books say was sent: not one more, and none twice.
    assert (stage.total() - before, len(stage.records())) == (cell.sent, cell.sent)

    place.mend()
    assert replay_dead_letters(stage.sources, "crm") == cell.dead
    second = stage.sync()
    assert (second.sent, second.failed, second.held) == (cell.then_sent, 0, 0)
    third = stage.sync()
    assert (third.sent, third.unchanged, third.calls) == (0, ROWS, 0)
    assert stage.total() == before + ROWS
    stage.assert_one_record_each(ROWS)
    # By the target's own log each record was told once.
    told = {index: place.written(stage.record_of(index)) for index in range(ROWS)}
    assert all([values[stage.tier] for values in written] == ["A"] for written in told.values()), told
