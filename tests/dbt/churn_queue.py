"""What the list of churn risk must be, of the company of tests/dbt/profile_stage.py."""

from collections import Counter
from datetime import timedelta

from tests.conftest import Warehouse
from tests.dbt.profile_company import AS_OF
from tests.dbt.profile_stage import CAPACITY


def check_parts_and_reasons(built: Warehouse) -> None:
    """Rows are due as many a day as the capacity, and say how unusual each risk is and which number of its kind it is."""
    means = dict(
        built.rows(
            "select churn_definition, avg(churn_probability) from candidate.customer_360 "
            "where not is_dormant or churn_definition = 'contract lapse' group by 1"
        )
    )
    what = {"no order": "of no further order", "contract lapse": "that its contract lapses"}
    rows = built.rows(
        "select place, due_date, reason, churn_probability, churn_definition, churn_told_by from candidate.operating_list "
        "join candidate.customer_360 using (account_id) where list = 'churn risk' order by place"
    )
    assert len(rows) > 2 * CAPACITY
    assert {("no order", "model"), ("contract lapse", "model"), ("contract lapse", "rules")} <= {
        row[-2:] for row in rows
    }
    of_kind = Counter(told_by for *_, told_by in rows)
    seen: Counter[str] = Counter()
    for number, (place, due, reason, probability, churn, told_by) in enumerate(rows):
        assert (place, due) == (number + 1, AS_OF + timedelta(days=3 + number // CAPACITY))
        seen[told_by] += 1
        stands = (
            f" Number {place} of {len(rows)}: by amount {seen[told_by]} of {of_kind[told_by]} "
            f"{'by rules' if told_by == 'rules' else 'with a probability'}, which take turns, since their amounts cannot be "
            f"compared; {CAPACITY} are due a day."
        )
        if told_by == "rules":
            assert reason.startswith("By warning rules, no model serves (its contract runs until ")
            assert reason.endswith(stands)
            continue
        mean = means[churn]
        assert reason == (
            f"Probability {what[churn]}: {100 * probability:.1f} %, {probability / mean:.1f} times the mean of "
            f"{100 * mean:.1f} %. one.{stands}"
        )


def check_turns(built: Warehouse) -> None:
    """A whole amount would stand above a larger one times its probability: no order of both together is fair."""
    rows = built.rows(
        "select amount, churn_told_by = 'rules' from candidate.operating_list join candidate.customer_360 "
        "using (account_id) where list = 'churn risk' order by place"
    )
    kinds = {kind: [amount for amount, by_rules in rows if by_rules is kind] for kind in (False, True)}
    for amounts in kinds.values():
        assert amounts == sorted(amounts, reverse=True)
        assert len(set(amounts)) > 1
    assert [amount for amount, _ in rows] != sorted((amount for amount, _ in rows), reverse=True)
    turns = sorted(
        (place / len(amounts), kind) for kind, amounts in kinds.items() for place in range(len(amounts))
    )
    assert [kind for _, kind in turns] == [kind for _, kind in rows]
    (told,) = built.rows("select amount_is from candidate.lists where list = 'churn risk'")[0]
    assert told.startswith("added up of several kinds: ")
    assert "net revenue of the last 365 days: no probability is told" in told
