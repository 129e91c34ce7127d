"""The operating lists as they are published."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.errors import StratumError
from include.warehouse.connect import connect

# A run that was published before its lists were tells of those with rows alone.
COUNTS = """
select list, coalesce(lists.priority, found.priority) as priority, coalesce(found.rows, 0) as rows, found.amount,
    lists.amount_is, coalesce(lists.currency, found.currency) as currency, found.first_due, found.last_due,
    coalesce(found.not_by_mail, 0) as not_by_mail
from published.lists
full join (
    select list, min(priority) as priority, count(*) as rows, sum(amount) as amount, min(currency) as currency,
        min(due_date) as first_due, max(due_date) as last_due,
        count(*) filter (where can_be_mailed is false) as not_by_mail
    from published.operating_list group by list
) as found using (list)
order by 2, 1
"""


def list_counts() -> list[dict[str, Any]]:
    """Return each list in force with its rows (0 where nobody is on it), amount, what that is, currency, earliest and
    latest due date and rows that cannot be mailed, the most urgent first.

    Raises StratumError where nothing is published.
    """
    return _read(COUNTS)


def one_list(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a list as list_counts tells of it, and its rows in their order, none where nobody is on it.

    Capitals, and dashes for spaces or the other way round, make no difference in the name. Raises StratumError where
    nothing is published, or no list in force has that name.
    """
    counts = list_counts()
    for found in counts:
        if _plain(found["list"]) == _plain(name):
            query = "select * from published.operating_list where list = %s order by place"
            return found, _read(query, found["list"])
    names = ", ".join(found["list"] for found in counts) or "none"
    raise StratumError(f"There is no list '{name}' as of the published date. The lists are: {names}.")


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())


def _read(query: str, *arguments: str) -> list[dict[str, Any]]:
    with connect("bi_reader") as connection:
        try:
            return connection.cursor(row_factory=dict_row).execute(query, arguments).fetchall()
        except psycopg.errors.UndefinedTable as error:
            raise StratumError("No lists are published yet. Run a date: stratum run --as-of DATE") from error
