"""The CRM of the demo's company: every value dated, every record of a company that is there, and what is made to find."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from include.sandbox.store import Record, record_id_of
from include.simulate.market.hubspot import SHANGHAI, accounts, records
from include.simulate.market.scales import DEMO, LAST_DAY

END = datetime(LAST_DAY.year, LAST_DAY.month, LAST_DAY.day, tzinfo=SHANGHAI) + timedelta(days=1)


@pytest.fixture(scope="module")
def crm() -> list[Record]:
    return records()


def latest(record: Record) -> dict[str, str]:
    return {name: value for name, _, value in record.values}


def of_kind(crm: list[Record], kind: str) -> list[Record]:
    return [record for record in crm if record.kind == kind]


def test_every_value_is_dated_in_order_between_creation_and_the_end(crm: list[Record]) -> None:
    for record in crm:
        moments = [moment for _, moment, _ in record.values]
        assert moments == sorted(moments)
        assert record.created_at == moments[0]
        assert moments[-1] < END


def test_every_record_belongs_to_a_company_made_before_it(crm: list[Record]) -> None:
    created = {record_id_of(place): account.created_at for place, account in enumerate(accounts())}
    for record in crm:
        assert record.company_id is not None
        assert record.created_at > created[record.company_id] - timedelta(days=90)


def test_records_come_by_type_and_time(crm: list[Record]) -> None:
    moments = defaultdict(list)
    for record in crm:
        moments[record.kind].append(record.created_at)
    assert list(moments) == ["contacts", "deals", "tickets", "feedback_submissions"]
    assert all(found == sorted(found) for found in moments.values())


def test_a_deal_goes_through_its_stages_and_ends_won_or_lost_or_open(crm: list[Record]) -> None:
    ends = Counter()
    for deal in of_kind(crm, "deals"):
        stages = [value for name, _, value in deal.values if name == "dealstage"]
        assert stages[0] == "appointmentscheduled"
        assert len(stages) == len(set(stages))
        ends[stages[-1] if stages[-1].startswith("closed") else "open"] += 1
        assert (latest(deal)["hs_is_closed_won"] == "true") == (stages[-1] == "closedwon")
        if stages[-1].startswith("closed"):
            closed = next(moment for name, moment, value in deal.values if value == stages[-1])
            assert latest(deal)["closedate"] == closed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert min(ends["closedwon"], ends["closedlost"], ends["open"]) > 20


def test_a_ticket_is_closed_when_it_has_a_closing_date(crm: list[Record]) -> None:
    stages = {(latest(t)["hs_pipeline_stage"], "closed_date" in latest(t)) for t in of_kind(crm, "tickets")}
    assert stages == {("1", False), ("4", True)}


def test_answers_are_of_both_surveys_and_in_their_ranges(crm: list[Record]) -> None:
    scores = defaultdict(set)
    for answer in of_kind(crm, "feedback_submissions"):
        scores[latest(answer)["hs_survey_type"]].add(int(latest(answer)["hs_value"]))
    assert set(scores) == {"NPS", "CSAT"}
    assert 0 <= min(scores["NPS"]) < 7
    assert max(scores["NPS"]) == 10
    assert (min(scores["CSAT"]), max(scores["CSAT"])) == (1, 5)


def test_some_companies_are_doubled_and_some_have_no_number() -> None:
    domains = Counter(account.domain for account in accounts())
    doubled = {domain for domain, many in domains.items() if many == 2}
    assert len(accounts()) == DEMO.accounts + len(doubled)
    assert len(doubled) >= 3
    for domain in doubled:
        numbers = [account.account_number for account in accounts() if account.domain == domain]
        assert None in numbers
    assert sum(account.account_number is None for account in accounts()) > len(doubled) + 10


def test_no_property_names_a_person_or_an_address(crm: list[Record]) -> None:
    names = {name for record in crm for name, _, _ in record.values}
    assert not {name for name in names if "name" in name and name != "dealname"}
    assert not {name for name in names if "email" in name and name != "hs_email_optout"}
    assert not {name for name in names if "phone" in name or "address" in name}
