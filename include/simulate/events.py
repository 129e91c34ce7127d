"""What the customers of the simulated company do on its ordering site: a csv.gz of events for each month.

The same rows on every machine, as in company.py: only `random.Random.random()` and exact arithmetic. An
account that stops ordering uses the site less and less in the 90 days before, and not at all afterwards;
other accounts have quiet weeks of their own, so that a quiet month alone proves nothing.
"""

import csv
import gzip
import hashlib
import io
import json
import os
from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random

from include.simulate.company import DAYS, FIRST_DAY, SEED, Customer, customers, orders_csv

HEADER = "event,occurred_at,account_no,user_no,session_no,feature,seconds"
FEATURES = (
    "quick_order",
    "price_list",
    "stock_check",
    "invoice_download",
    "reorder_template",
    "approval_flow",
    "delivery_tracking",
)
FLOW = ("flow_search", "flow_compare", "flow_cart", "flow_checkout")
"""The steps of a purchase, in their order; the last belongs to an order that was placed."""

NEVER_SHARE = 0.08  # of accounts: they order by phone or mail
FADING_DAYS = 90  # of ever less use before an account stops
QUIET_RATE = 0.10  # of the four-week spells of an account
WEEKEND_RATE = 0.15  # of the use on a working day
STOPPED_AT_COMPARE = 0.40  # of flows that lead to no order; the rest stop at the cart
NO_ACCOUNT_RATE = 0.01  # of sessions
UNKNOWN_TIME_RATE = 0.001  # of events, as all below
NO_NAME_RATE = 0.001
REPEATED_RATE = 0.003

MANIFEST = "manifest.json"

Rows = dict[str, list[tuple[str, str]]]
"""Month (YYYY-MM) → (time as text, csv row) of its events, not sorted."""


def write_events(folder: Path) -> None:
    """Write `<YYYY-MM>.csv.gz` for each month into `folder`, unless they stand there already.

    They stand where the manifest beside them names this code and every file is as it was written.
    """
    manifest = folder / MANIFEST
    maker = _maker()
    if _stands(folder, maker):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.csv.gz"):
        old.unlink()
    written = {}
    for month, text in events_csv().items():
        # mtime=0: the same bytes at any time. Level 1: a third of the time for a quarter more bytes.
        data = gzip.compress(text.encode(), compresslevel=1, mtime=0)
        written[f"{month}.csv.gz"] = hashlib.sha256(data).hexdigest()
        _write(folder / f"{month}.csv.gz", data)
    _write(manifest, json.dumps({"maker": maker, "files": written}, indent=1).encode())


def events_csv() -> dict[str, str]:
    """Return month (YYYY-MM) → its events as CSV text, by time, faults included."""
    random = Random(SEED + 3)  # noqa: S311 - simulation
    ordered = _orders_by_day()
    months: Rows = defaultdict(list)
    for customer in customers():
        if random.random() >= NEVER_SHARE:
            _Account(customer, ordered.get(customer.number, {}), random).use(months)
    return {
        month: "\n".join([HEADER, *(row for _, row in sorted(months[month]))]) + "\n"
        for month in sorted(months)
    }


class _Account:
    """One account's use of the site: who its users are, and how much it does on a day."""

    def __init__(self, customer: Customer, ordered: dict[int, list[int]], random: Random) -> None:
        """`ordered` maps a day (0 = FIRST_DAY) to the times of its orders, in seconds of the day."""
        self.customer = customer
        self.ordered = ordered
        self.random = random
        self.rate = 0.08 + 0.64 * random.random() * random.random()  # sessions on a working day
        self.users = 1 + int(min(4.0, customer.size / 4) * random.random())
        first = int(len(FEATURES) * random.random())
        # Who uses more features, uses the site more: the favourites come first.
        self.features = [
            FEATURES[(first + step) % len(FEATURES)] for step in range(1 + int(6 * random.random()))
        ]
        self.sessions = 0

    def use(self, months: Rows) -> None:
        """Add all the account ever does to `months`."""
        quiet = 1.0
        for day in range(self.customer.first_day, self.customer.last_day + 1):
            if (day - self.customer.first_day) % 28 == 0:
                quiet = 0.1 if self.random.random() < QUIET_RATE else 0.5 + self.random.random()
            at = FIRST_DAY + timedelta(days=day)
            for second in self.ordered.get(day, ()):
                self._session(months, at, second, ends_in_order=True)
            chance = self.rate * quiet * self._fading(day) * (WEEKEND_RATE if at.weekday() >= 5 else 1.0)
            if self.random.random() < chance:
                self._session(months, at, 8 * 3600 + int(11 * 3600 * self.random.random()))

    def _fading(self, day: int) -> float:
        """Return how much of its usual use an account still makes: less each day where it is about to stop."""
        left = self.customer.last_day - day
        if self.customer.last_day == DAYS - 1 or left >= FADING_DAYS:
            return 1.0
        return left / FADING_DAYS

    def _session(self, months: Rows, day: date, second: int, ends_in_order: bool = False) -> None:
        """Add one session: it begins at a second of the day, or its checkout is the order of that second."""
        random = self.random
        self.sessions += 1
        account = "" if random.random() < NO_ACCOUNT_RATE else self.customer.number
        user = f"{self.customer.number}-u{1 + int(self.users * random.random())}"
        who = f"{account},{user},{self.customer.number}-s{self.sessions}"
        steps: list[tuple[str, str]] = []
        for _ in range(int(3.6 * random.random())):
            if random.random() < 0.45:
                # The first features of the list are used most.
                choice = int(len(self.features) * random.random() * random.random())
                steps.append(("feature_use", self.features[choice]))
            else:
                steps.append(("page_view", ""))
        if ends_in_order:
            steps += [(step, "") for step in FLOW]
        elif random.random() < 0.12:
            reached = 2 if random.random() < STOPPED_AT_COMPARE else 3
            steps += [(step, "") for step in FLOW[:reached]]
        times = [0]
        for _ in steps:
            times.append(times[-1] + 5 + int(120 * random.random()))
        length = times[-1] + 10 + int(120 * random.random())
        begin = second - times[-1] if ends_in_order else second
        # The login bears the length of its session; the steps within it bear none, so nothing counts twice.
        self._event(months, day, begin, f"login,{{}},{who},,{length}")
        for (event, feature), after in zip(steps, times[1:], strict=True):
            self._event(months, day, begin + after, f"{event},{{}},{who},{feature},")

    def _event(self, months: Rows, day: date, second: int, row: str) -> None:
        """Add one event, or two where it is repeated, with the fault that befalls it."""
        at = f"{day.isoformat()} {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        fault = self.random.random()
        written = at
        if fault < UNKNOWN_TIME_RATE:
            written = "unknown"
        elif fault < UNKNOWN_TIME_RATE + NO_NAME_RATE:
            row = row[row.index(",") :]
        added = (at, row.format(written))
        events = months[at[:7]]
        events.append(added)
        if UNKNOWN_TIME_RATE + NO_NAME_RATE <= fault < UNKNOWN_TIME_RATE + NO_NAME_RATE + REPEATED_RATE:
            events.append(added)


def _orders_by_day() -> dict[str, dict[int, list[int]]]:
    """Return customer → day (0 = FIRST_DAY) → the seconds of that day at which an order was placed."""
    found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    seen = set()
    for number, customer, at, *_ in csv.reader(io.StringIO(orders_csv())):
        if not customer or not number.startswith("S") or number in seen or at[2] == ".":
            continue
        seen.add(number)
        placed = datetime.fromisoformat(at)
        seconds = placed.hour * 3600 + placed.minute * 60 + placed.second
        found[customer][(placed.date() - FIRST_DAY).days].append(seconds)
    return found


def _maker() -> str:
    """Return a hash of all that decides the bytes: this code, and the orders that the events lead to."""
    return hashlib.sha256(Path(__file__).read_bytes() + orders_csv().encode()).hexdigest()


def _stands(folder: Path, maker: str) -> bool:
    try:
        held = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if held.get("maker") != maker:
        return False
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.csv.gz")}
    return files == held.get("files")


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)  # a reader sees a whole file or none
