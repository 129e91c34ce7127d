"""The simulated CRM is the same on every machine, and an account's records tell of its fate."""

import hashlib
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from include.simulate.company import CUSTOMERS, DAYS, FIRST_DAY, accounts, customers
from include.simulate.crm import END, SHANGHAI, Record, records

RECORDS_SHA256 = "b13351e1fb1ac4e8471251d30f70c00374876f20dc7e596660dca3160d6164a5"
STOPPED = {each.number: each.last_day for each in customers() if each.last_day < DAYS - 1}
BUYERS = {each.number for each in customers()}


def of_kind(kind: str) -> list[Record]:
    return [record for record in records() if record.kind == kind]


def latest(record: Record) -> dict[str, str]:
    return {name: value for name, _, value in record.values}


def day(moment: datetime) -> int:
    return (moment.astimezone(SHANGHAI).date() - FIRST_DAY).days


def is_before_the_end(record: Record) -> bool:
    """Tell whether a record falls into the last 120 days of an account that stopped ordering."""
    return record.account in STOPPED and 0 <= STOPPED[record.account] - day(record.created_at) < 120


def test_the_values_are_pinned() -> None:
    assert hashlib.sha256(repr(records()).encode()).hexdigest() == RECORDS_SHA256


def test_there_is_about_as_much_of_everything_as_a_company_of_this_size_has() -> None:
    many = Counter(record.kind for record in records())
    assert 1300 <= many["contacts"] <= 1700
    assert 1300 <= many["deals"] <= 1700
    assert 2200 <= many["tickets"] <= 2800
    assert 1300 <= many["feedback_submissions"] <= 1700


def test_every_value_is_dated_in_order_between_creation_and_the_end() -> None:
    for record in records():
        moments = [moment for _, moment, _ in record.values]
        assert moments == sorted(moments)
        assert record.created_at <= moments[0]
        assert moments[-1] < (record.archived_at or END)


def test_records_belong_to_accounts_of_the_crm_and_stand_in_it_after_them() -> None:
    created = {each["account_number"]: datetime.fromisoformat(each["created_at"]) for each in accounts()}
    for record in records():
        if record.account is not None:
            assert record.created_at >= created[record.account].replace(hour=0)
    lost = [record for record in records() if record.account is None]
    assert {record.kind for record in lost} == {"contacts", "deals", "tickets"}
    assert len(lost) < 0.02 * len(records())


def test_leaving_accounts_open_more_and_graver_tickets_that_stay_open() -> None:
    usual, end = [], []
    for record in of_kind("tickets"):
        if record.account is not None:
            (end if is_before_the_end(record) else usual).append(latest(record))
    active_days = sum(each.last_day - each.first_day + 1 for each in customers())
    end_days = 120 * len(STOPPED)
    assert len(end) / end_days > 2.5 * len(usual) / (active_days - end_days)

    def grave(found: list[dict[str, str]]) -> float:
        return sum(each["hs_ticket_priority"] in ("HIGH", "URGENT") for each in found) / len(found)

    def unsolved(found: list[dict[str, str]]) -> float:
        return sum("closed_date" not in each for each in found) / len(found)

    assert grave(end) > 1.7 * grave(usual)
    assert unsolved(end) > 2 * unsolved(usual)


def test_leaving_accounts_answer_lower_and_win_less() -> None:
    scores: dict[bool, list[int]] = defaultdict(list)
    for record in of_kind("feedback_submissions"):
        score = int(latest(record)["hs_value"])
        assert 0 <= score <= 10
        scores[is_before_the_end(record)].append(score)
    assert sum(scores[True]) / len(scores[True]) < sum(scores[False]) / len(scores[False]) - 2
    assert max(scores[True]) >= 8  # some leave silently
    won: dict[bool, list[bool]] = defaultdict(list)
    for record in of_kind("deals"):
        stage = latest(record)["dealstage"]
        if stage in ("closedwon", "closedlost") and latest(record)["dealtype"] == "existingbusiness":
            won[is_before_the_end(record)].append(stage == "closedwon")
    assert sum(won[True]) / len(won[True]) < 0.6 * sum(won[False]) / len(won[False])


def test_an_account_answers_about_twice_a_year_and_some_never_do() -> None:
    answers: dict[str, list[datetime]] = defaultdict(list)
    for record in of_kind("feedback_submissions"):
        assert record.account is not None
        answers[record.account].append(record.created_at)
    gaps = [later - earlier for found in answers.values() for earlier, later in pairwise(found)]
    assert timedelta(days=150) < sum(gaps, timedelta()) / len(gaps) < timedelta(days=215)
    assert 0.7 * CUSTOMERS < len(answers) < 0.95 * CUSTOMERS


def test_some_accounts_lack_a_decision_maker_and_some_people_opted_out() -> None:
    deciding = {
        r.account for r in of_kind("contacts") if "DECISION_MAKER" in latest(r).get("hs_buying_role", "")
    }
    known = {record.account for record in of_kind("contacts") if record.account}
    assert len(known) == len(accounts())
    assert 0.15 < 1 - len(deciding) / len(known) < 0.30
    out = [r for r in of_kind("contacts") if latest(r).get("hs_email_optout") == "true"]
    assert 0.02 < len(out) / len(of_kind("contacts")) < 0.10
    assert any(record.archived_at for record in of_kind("contacts"))


def test_no_property_names_a_person_or_an_address() -> None:
    names = {name for record in records() for name, _, _ in record.values}
    assert not names & {"firstname", "lastname", "email", "phone", "address"}
    assert not any("@" in value for record in records() for _, _, value in record.values)


def test_a_deal_is_won_lost_or_open_and_dated_so() -> None:
    stages = Counter()
    for record in of_kind("deals"):
        deal = latest(record)
        stages[deal["dealstage"]] += 1
        assert deal["deal_currency_code"] == "CNY"
        assert int(deal["amount"]) > 0
        assert (deal["hs_is_closed_won"] == "true") == (deal["dealstage"] == "closedwon")
        if deal["dealstage"].startswith("closed"):
            closed = max(moment for name, moment, _ in record.values if name == "dealstage")
            assert datetime.fromisoformat(deal["closedate"]) - closed.astimezone(UTC) < timedelta(seconds=1)
    assert stages["closedwon"] > stages["closedlost"] > 100
    assert sum(stages.values()) - stages["closedwon"] - stages["closedlost"] > 50


def test_the_deal_that_brought_a_customer_was_won_before_its_first_order() -> None:
    first = {each.number: each.first_day for each in customers()}
    new = [record for record in of_kind("deals") if latest(record)["dealtype"] == "newbusiness"]
    bought = [record for record in new if record.account in BUYERS]
    assert len(bought) > 150
    for record in bought:
        assert latest(record)["dealstage"] == "closedwon"
        assert day(record.values[-1][1]) <= first[record.account]
