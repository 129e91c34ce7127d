"""The profile and the operating lists: equal to a count from raw rows, on both sides of each limit, blind to later days."""

from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal

import pytest

from include.dbt import build
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.dbt import churn_queue, profile_company
from tests.dbt.profile_company import AS_OF, Company, ago
from tests.dbt.profile_stage import FRESHNESS, Lists, build_profile, read_lists, used


@pytest.fixture(scope="module")
def company() -> Company:
    return profile_company.make(seed=11)


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse, company: Company) -> Warehouse:
    """The company as of AS_OF, built through all layers with scores."""
    build_profile(module_warehouse, company)
    return module_warehouse


@pytest.fixture(scope="module")
def lists(built: Warehouse) -> Lists:
    return read_lists(built)


def test_decision_chains_and_reach_equal_a_count_of_the_contacts(built: Warehouse, company: Company) -> None:
    rows = built.rows(
        "select account_id, role, contacts, is_covered, missing_message, missing_format, no_value_reason "
        "from marts.account_decision_chains"
    )
    expected = profile_company.chains(company)
    assert {(account, role): tuple(rest) for account, role, *rest in rows} == expected
    assert len({row[1:3] for row in rows}) >= 6, "accounts with several, one and no contact of a role"
    mailable = dict(built.rows("select account_id, can_be_mailed from marts.account_reach"))
    assert mailable == profile_company.reach(company)
    assert set(mailable.values()) == {True, False, None}


def test_missing_roles_are_told_in_customer_360(built: Warehouse, company: Company) -> None:
    told = dict(built.rows("select account_id, missing_roles from candidate.customer_360"))
    expected: dict[str, list[str]] = defaultdict(list)
    for (account, role), (_, is_covered, *_) in profile_company.chains(company).items():
        if is_covered is False:
            expected[account].append(role)
    for account, roles in told.items():
        if account in company.crm_ids:
            assert roles == (", ".join(sorted(expected[account])) or "none"), account
        else:
            assert roles is None


def test_contracts_are_listed_by_their_own_dates(lists: Lists, company: Company) -> None:
    accounts = {crm_id: account for account, crm_id in company.crm_ids.items()}
    waiting, expiring = set(), set()
    for contract in company.contracts:
        account = accounts.get(contract.account_key.removeprefix("hubspot:"), contract.account_key)
        is_signed = contract.signed is not None and contract.signed <= AS_OF
        row = (account, contract.contract_id, contract.value)
        if not is_signed and 3 <= (AS_OF - contract.sent).days <= 180:
            waiting.add((*row, AS_OF + timedelta(days=3)))
        renewed = any(
            other.renews == contract.contract_id and other.signed and other.signed <= AS_OF
            for other in company.contracts
        )
        if is_signed and AS_OF <= contract.ends <= AS_OF + timedelta(days=60) and not renewed:
            expiring.add((*row, min(contract.ends, AS_OF + timedelta(days=14))))
    assert lists["unsigned contracts"] == waiting
    assert {row[1] for row in waiting} == {"w2", "w3", "w-signs-later", "e-next-unsigned"}
    assert lists["expiring contracts"] == expiring
    assert {row[1] for row in expiring} == {"e1", "e2", "e-waiting"}


def test_a_referral_is_rewarded_with_a_tenth_of_the_yearly_fee(lists: Lists) -> None:
    due = AS_OF + timedelta(days=14)
    assert lists["referral reward"] == {
        ("c02", "r0", Decimal("100.00"), due),  # first ordered 89 days ago, for 1,000
        ("c03", "r2", Decimal("3650.00"), due),  # a contract of 730 days over 73,000
    }


def test_lists_of_states_hold_who_is_in_them_and_nobody_else(built: Warehouse, lists: Lists) -> None:
    columns = (
        "account_id, has_ordered, tier, is_dormant, age_stage, segment, days_since_last_order, churn_probability, "
        "yearly_net_spend, missing_roles, value_tier, churn_told_by = 'rules' and churn_warning_severity = 'high', "
        "churn_definition"
    )
    listed = {name: {row[0] for row in rows} for name, rows in lists.items()}
    scored = built.rows("select account_id from ml.scores where model = 'upsell' order by score_rank")
    chances = profile_company.upsell_chances([account for (account,) in scored])
    expected: dict[str, set[str]] = defaultdict(set)
    for (
        account, ordered, tier, dormant, age, segment, last, probability, _, missing, value, warned, churn,
    ) in built.rows(f"select {columns} from candidate.customer_360"):  # fmt: skip
        at_risk = probability is not None and probability >= Decimal("0.2")
        for name, belongs in {
            "churn risk": (at_risk or warned) and (not dormant or churn == "contract lapse"),
            "executive visit": at_risk and tier == "S",
            "win-back": ordered and (dormant or age == "declining") and 30 <= last <= 1095,
            "upsell": (segment == "potential" or chances.get(account, (False,))[0])
            and not (dormant or at_risk),
            "nurture": tier == "B" or account in ("hubspot:300", "hubspot:301"),  # the others fit by 0
            "trial offer": account == "t0",
            "monthly visit": value == "high",
            "missing decision role": tier in ("S", "A") and missing not in (None, "none"),
        }.items():
            if belongs:
                expected[name].add(account)
    held_out = {
        row[0] for row in built.rows("select account_id from candidate.customer_360 where is_held_out")
    }
    told = built.rows("select account_id, reason from candidate.operating_list where list = 'upsell'")
    assert all(reason.endswith(f" {chances[account][1]}") for account, reason in told)
    assert any(reason.startswith("Likelier to buy more than most: net revenue") for _, reason in told)
    assert held_out & set.union(*expected.values()), "somebody who is held out would be listed"
    assert {name: listed.get(name, set()) for name in expected} == {
        name: accounts - held_out for name, accounts in expected.items()
    }
    assert set(listed) - set(expected) == {"unsigned contracts", "expiring contracts", "referral reward"}
    assert {"churn risk", "win-back", "nurture", "trial offer", "missing decision role"} <= set(expected)
    assert "g0" in listed["win-back"]
    assert "g1" not in listed["win-back"], "its last order lies 1,096 days back"


def test_a_row_says_why_with_its_values_and_what_is_due(built: Warehouse) -> None:
    def row(name: str, account: str) -> tuple:
        (found,) = built.rows(
            "select reason, due_date, priority, policy_effective_from from candidate.operating_list "
            "where list = %s and account_id = %s",
            name,
            account,
        )
        return found

    assert row("trial offer", "t0") == (
        f"On trial since {ago(30)}: 20 % off until {AS_OF}.",
        AS_OF,
        3,
        date(2000, 1, 1),
    )
    reason, due, priority, _ = row("win-back", "g0")
    assert (due, priority) == (AS_OF + timedelta(days=14), 4)
    assert reason == (
        f"Dormant: last order 1095 days ago, on {ago(1095)}. The amount is the net revenue of a mean year."
    )
    assert row("win-back", "d1")[0] == (
        "Declining (fewer than 50 % of the 90 days before, or none: orders 1 after 3; logins 0 after 0): "
        f"last order 30 days ago, on {ago(30)}. The amount is the net revenue of the last 365 days."
    )
    assert (
        row("expiring contracts", "c31")[0]
        == f"Contract e1 ends on {AS_OF}, and none that follows it has been sent."
    )
    assert row("expiring contracts", "c35")[0] == (
        f"Contract e-waiting ends on {ago(-10)}; renewal e-next-unsigned sent on {ago(5)}, not signed: "
        "chase the signature."
    )
    assert (
        "fit 0.75 of 1: need match 1.00, ability to pay 0.50; 50 % of what"
        in row("nurture", "hubspot:300")[0]
    )


def test_the_churn_queue_is_due_in_parts_and_says_how_unusual_each_risk_is(built: Warehouse) -> None:
    churn_queue.check_parts_and_reasons(built)


def test_each_account_is_told_the_churn_of_its_own_form(built: Warehouse) -> None:
    """Of contracts that are due by their model; of the others, and where that is absent, the rules, with the reason."""
    rows = built.rows(
        "select account_id, has_ordered, churn_definition, churn_model_id, churn_told_by_reason from candidate.customer_360"
    )
    for account, ordered, *told in rows:
        assert tuple(told) == profile_company.churn_of(account, ordered), account
    assert {account for account, *_ in rows} >= set(profile_company.UNDER_CONTRACT)
    agreed = built.rows(
        "select churn_definition, sum(accounts) from candidate.warning_agreement where told_on = %s group by 1",
        AS_OF,
    )
    assert dict(agreed)["contract lapse"] == len(profile_company.DUE)
    few = "too little history: 12 accounts × month-ends"
    with connect("scorer") as connection:
        connection.execute(
            "insert into ml.runs (run_id, model, as_of_date, status, reason, accounts) "
            "values ('run-few', 'lapse', %s, 'absent', %s, 0)",
            [AS_OF, few],
        )
    profile_company.score(
        "churn", sorted(account for account, _, churn, *_ in rows if churn == "no order"), "run-few"
    )
    build("published", AS_OF, "run-few")
    told = built.rows(
        "select churn_told_by, churn_told_by_reason, churn_probability from candidate.customer_360 "
        "where account_id = any(%s)",
        sorted(profile_company.DUE),
    )
    build("published", AS_OF, "run-1")
    assert {row[1:] for row in told} == {(few, None)}
    assert {row[0] for row in told} <= {"rules", "nothing"}


def test_each_account_is_told_its_upsell_and_its_next_order_or_why_not(built: Warehouse) -> None:
    """As the models scored it; of who is not of their population, and where a model is absent, the reason."""
    rows = built.rows(
        "select customers.account_id, has_ordered, upsell_definition, upsell_probability, upsell_rank, upsell_chance, "
        "upsell_next_best, upsell_next_best_probability, upsell_told_by, upsell_told_by_reason, repurchase_probability, "
        "repurchase_expected_value, repurchase_told_by from candidate.customer_360 as customers"
    )
    scored = [
        account
        for (account,) in built.rows(
            "select account_id from ml.scores where model = 'upsell' order by score_rank"
        )
    ]
    chances, a_model = profile_company.upsell_chances(scored), "a model tells a probability, and its reasons"
    expected: dict[str, tuple] = {
        account: (
            "new category",
            profile_company.PROBABILITIES[place % 4],
            place + 1,
            "high" if chances[account][0] else "normal",
            "chairs",
            profile_company.LIKELIEST if place % 2 else None,
            "model",
            a_model,
        )
        for place, account in enumerate(scored)
    }
    ordered = sorted(account for account, has_ordered, *_ in rows if has_ordered)
    (left_out,) = set(ordered) - set(scored)
    for account, has_ordered, *told in rows:
        why = (
            "it is not of the accounts that the model speaks of"
            if account == left_out
            else "it has not ordered: the model does not speak of it"
        )
        assert tuple(told[:8]) == expected.get(account, (None,) * 6 + ("nothing", why)), account
        place = ordered.index(account) if has_ordered else None
        assert tuple(told[8:]) == (
            (None, None, "nothing")
            if place is None
            else (profile_company.PROBABILITIES[place % 4], place, "model")
        )
    assert {row[5] for row in rows} == {"high", "normal", None}


def test_amounts_are_what_is_at_stake_now_and_say_what_they_are(built: Warehouse) -> None:
    rows = built.rows(
        "select list, amount, amount_is, churn_probability, net_revenue_365d, yearly_net_spend, "
        "net_revenue_prior_365d, tier, value_tier, reason, churn_told_by, yearly_contract_value "
        "from candidate.operating_list join candidate.customer_360 as customers using (account_id) "
        "left join (select account_id, net_revenue_prior_365d from marts.account_features where as_of_date = %s) "
        "as features using (account_id) "
        "left join (select account_id, yearly_contract_value from marts.lapse_features where as_of_date = %s) "
        "as held using (account_id) where subject = 'account'",
        AS_OF,
        AS_OF,
    )
    kinds = set()
    for (
        name, amount, amount_is, probability, year, mean_year, year_before, tier, value, reason, told_by, contract,
    ) in rows:  # fmt: skip
        if name == "churn risk" and told_by == "rules":
            assert (amount, amount_is) == (
                max(year, 0),
                "net revenue of the last 365 days: no probability is told",
            )
        elif name == "churn risk":
            assert amount == round(probability * (contract or max(year, 0)), 2)
            assert amount_is.startswith(
                "a year of its contract" if contract else "net revenue of the last 365 days times"
            )
        elif name in ("executive visit", "upsell", "monthly visit"):
            assert amount == max(year, 0), name
        elif name == "win-back":
            kind = 0 if year > 0 else 1 if year_before > 0 else 2
            kinds.add(kind)
            assert amount == (year, year_before, max(mean_year, 0))[kind]
            said = ("the last 365 days.", "the 365 days before the last 365.", "a mean year.")[kind]
            assert reason.endswith(f"net revenue of {said}")
        elif name == "nurture":
            assert amount == (max(year, 0) if tier == "B" else None)
        if name == "executive visit":
            assert reason.startswith(f"Tier S, value tier {value or 'not known'}: ")
            assert f"of {year} CNY of net revenue in the last 365 days" in reason
        assert amount is None or amount_is
    assert kinds == {0, 1, 2}
    assert any(year != mean_year for _, _, _, _, year, mean_year, *_ in rows)
    assert any(name == "churn risk" and contract for name, *_, contract in rows)


def test_prospects_are_nurtured_by_their_fit_and_behind_customers(built: Warehouse) -> None:
    listed = built.rows(
        "select account_id, amount is not null from candidate.operating_list where list = 'nurture' order by place"
    )
    assert [has_amount for _, has_amount in listed] == [True] * (len(listed) - 2) + [False] * 2
    assert [account for account, _ in listed[-2:]] == ["hubspot:300", "hubspot:301"]


def test_the_lists_in_force_are_told_with_what_is_on_them(built: Warehouse) -> None:
    told = built.rows("select list, list_rows, amount, first_due_date, last_due_date from candidate.lists")
    counted = {
        name: rest
        for name, *rest in built.rows(
            "select list, count(*), sum(amount), min(due_date), max(due_date) from candidate.operating_list group by 1"
        )
    }
    assert {name: rest for name, *rest in told} == {
        name: counted.get(name, [0, None, None, None])
        for (name,) in built.rows("select list from marts.operating_lists")
    }


def test_nobody_is_guided_to_a_first_order_and_won_back_at_once(built: Warehouse) -> None:
    stages = built.rows(
        "select relationship_stage, journey_stage, relationship_reason, journey_reason from candidate.customer_360"
    )
    assert ("lapsed", "newcomer") not in {stage[:2] for stage in stages}
    assert all(relationship and journey for *_, relationship, journey in stages)


def test_who_may_not_be_mailed_is_listed_and_flagged(built: Warehouse, company: Company) -> None:
    rows = built.rows(
        "select account_id, can_be_mailed, no_mail_reason is null from candidate.operating_list"
    )
    mailable = profile_company.reach(company)
    assert {(account, may, may is True) for account, may, _ in rows} == set(rows)
    assert all(may is mailable[account] for account, may, _ in rows)
    assert {may for _, may, _ in rows} == {True, False, None}


def test_places_of_a_list_go_down_by_amount(built: Warehouse) -> None:
    amounts = [
        amount
        for (amount,) in built.rows(
            "select amount from candidate.operating_list where list = 'win-back' order by place"
        )
    ]
    assert amounts == sorted(amounts, reverse=True)
    assert len(amounts) > 3


def test_whole_amounts_of_rules_and_expected_ones_take_turns_each_in_its_own_order(built: Warehouse) -> None:
    churn_queue.check_turns(built)


def test_the_usage_report_equals_a_count_of_the_months_lines_and_events(
    built: Warehouse, company: Company
) -> None:
    rows = built.rows(
        "select account_id, logins, active_days, orders, net_revenue, logins_before, active_days_before, orders_before, "
        "net_revenue_before, recipients from candidate.usage_report where month = '2026-06-01'"
    )
    audience = built.rows(
        "select account_id from candidate.customer_360 where value_tier in ('middle', 'low') and not is_held_out"
    )
    of_audience = {account for (account,) in audience}
    silent = {
        account
        for account in of_audience
        if not any((*used(company, account, 6), *used(company, account, 5)))
    }
    assert silent, "somebody did nothing in both months"
    assert {row[0] for row in rows} == of_audience - silent
    mailable = {
        account: sum(not out for crm_id, _, out in profile_company.standing(company) if crm_id == known)
        for account, known in company.crm_ids.items()
    }
    for account, *row in rows:
        first = company.first_order(account)
        assert first is not None
        assert tuple(row[:4]) == used(company, account, 6), account
        assert tuple(row[4:8]) == (used(company, account, 5) if first < date(2026, 6, 1) else (None,) * 4), (
            account
        )
        assert row[8] == mailable.get(account)
    assert sum(row[1] for row in rows) > 5


def test_who_is_high_value_is_visited_every_month_or_held_out(built: Warehouse) -> None:
    high = built.rows(
        "select account_id, is_held_out, owes_dedicated_manager from candidate.customer_360 where value_tier = 'high'"
    )
    visited = built.rows(
        "select account_id, owner_role from candidate.operating_list where list = 'monthly visit'"
    )
    assert {account for account, is_held_out, _ in high if not is_held_out} == {
        account for account, _ in visited
    }
    assert {role for _, role in visited} == {"success manager"}
    assert all(owes for *_, owes in high)
    others = built.rows(
        "select distinct list.owner_role from candidate.operating_list as list "
        "join candidate.customer_360 using (account_id) where value_tier is distinct from 'high'"
    )
    assert others == [("specialist",)]


def test_prospects_fit_by_what_is_known_of_them_and_by_nothing_else(built: Warehouse) -> None:
    rows = built.rows(
        "select account_id, round(fit_score, 3), known_weight, need_match_fit, ability_to_pay_fit, usage_frequency_fit, "
        "usage_cycle_fit, price_fit, is_on_trial from marts.prospect_fit"
    )
    told = {
        account: tuple(None if value is None else float(value) for value in row) for account, *row in rows
    }
    assert told == {
        "hubspot:300": (0.75, 0.5, 1.0, 0.5, None, None, None, 0.0),  # an open deal over half of 100,000
        # a need of 6, a price of 8, no open deal
        "hubspot:301": (0.633, 0.3, 0.6, None, None, None, 0.8, 0.0),
        "hubspot:302": (0.0, 0.25, 0.0, None, None, None, None, 0.0),
        "hubspot:303": (0.0, 0.25, 0.0, None, None, None, None, 0.0),  # its deal is of a later day
        "t0": (0.097, 0.55, 0.0, None, 0.1667, 0.2, None, 1.0),  # used on 2 of 30 days, every 15 days
        "t1": (0.096, 0.55, 0.0, None, 0.1667, 0.1935, None, 1.0),  # every 15.5 days
    }


def test_references_are_content_active_and_of_the_prospects_industry(
    built: Warehouse, company: Company
) -> None:
    facts = built.rows(
        "select account_id, industry, tier, relationship_stage, days_since_last_order, yearly_net_spend "
        "from candidate.customer_360 where has_ordered and industry is not null"
    )
    fit: dict[str, list[tuple]] = defaultdict(list)
    for account, industry, tier, stage, last, spend in facts:
        answers = [score for day, score in company.nps.get(account, []) if day <= AS_OF]
        if (tier == "S" or stage == "loyal") and answers and answers[-1] >= 9 and last < 90:
            fit[industry].append((-answers[-1], -spend, account))
    assert fit, "there is a reference"
    prospects = built.rows(
        "select account_id, industry from candidate.customer_360 where not has_ordered and industry is not null"
    )
    expected = {
        (account, reference, place)
        for account, industry in prospects
        for place, (*_, reference) in enumerate(sorted(fit[industry])[:3], start=1)
    }
    assert expected
    assert (
        set(built.rows("select account_id, reference_account_id, place from marts.reference_matches"))
        == expected
    )


def test_the_owner_is_who_it_was_on_the_day(built: Warehouse) -> None:
    owners = built.rows("select account_id, owner_id from candidate.customer_360 where owner_id is not null")
    assert owners == [("c39", "owner07")]
    listed = built.rows("select distinct owner_id from candidate.operating_list where account_id = 'c39'")
    assert listed in ([], [("owner07",)])


def test_freshness_tells_the_newest_row_up_to_the_date_and_what_is_late(
    built: Warehouse, company: Company
) -> None:
    rows = {row[0]: row[1:] for row in built.rows(FRESHNESS)}
    newest = max(line.ordered_at for line in company.lines if line.day <= AS_OF)
    assert rows["order_lines"] == (newest, len(company.lines), 0, False, None, AS_OF)
    last = max(event.at for event in company.events)
    assert rows["events"] == (last, len(company.events), 0, False, None, AS_OF)
    signed = max(
        moment
        for contract in company.contracts
        for moment in (contract.sent, contract.signed)
        if moment and moment <= AS_OF
    )
    assert rows["contracts"][0] == profile_company.at(signed)
    assert rows["tickets"] == (None, 0, None, None, "absent: not configured", None)
    assert (rows["referrals"][0], rows["referrals"][-1]) == (None, ago(10)), "its time is not known"


def test_tags_keep_the_day_they_were_set(built: Warehouse) -> None:
    profile_company.check_tags(built, AS_OF)
    assert built.value("select count(distinct set_on) from marts.account_tags") > 2
