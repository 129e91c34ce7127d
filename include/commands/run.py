"""`stratum run`, `demo`, `up` and `down`: the whole chain for a date, and the stack it runs on."""

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.commands.common import (
    AsJson,
    SourcesFile,
    assert_over,
    cut_off,
    last_sources,
    phase,
    read_sources,
    running,
    say,
    say_aside,
)
from include.dates import parse_as_of
from include.errors import StratumError
from include.settings import SIMULATED_SOURCES, SOURCES_VARIABLE, get_settings
from include.warehouse.connect import printable, role_url

if TYPE_CHECKING:
    from include.local.chain import Follow

AsOf = Annotated[str, typer.Option("--as-of", help="The date to build, YYYY-MM-DD.")]


def demo() -> None:
    """Run the simulated company's last day and show what came of it."""
    from include.simulate.market.scales import LAST_DAY

    _run(LAST_DAY, SIMULATED_SOURCES, as_json=False)


def run(as_of: AsOf, sources: SourcesFile = None, as_json: AsJson = False) -> None:
    """Run the whole chain for a date; start what is missing and stop what was started."""
    _run(parse_as_of(as_of), sources, as_json)


def up(sources: SourcesFile = None) -> None:
    """Start PostgreSQL, Airflow and, where the sources name it, the CRM sandbox, and leave them running."""

    from include.local.stack import Stack

    settings = get_settings()
    chosen, parsed = read_sources(settings, sources)
    stack = Stack(settings, say)
    try:
        with phase("start", say):
            stack.up(parsed)
            use_sources(stack, chosen, parsed)
            stack.stay_up()
    except BaseException:
        stack.down_started()
        raise
    _say_places(stack, "")
    say("Schedules are on." if settings.schedule else "Schedules are off; switch them on: make up SCHEDULE=1")


def down() -> None:
    """Stop everything of this STRATUM_HOME."""
    from include.local.stack import Stack

    with phase("stop", say):
        Stack(get_settings(), say).down()


def use_sources(stack: Any, chosen: Path, sources: Any) -> None:
    """Put these sources in force, for this run and those after it; another company's are refused."""
    from include.sources.loads import check_company
    from include.warehouse.connect import connect

    company = sources.company
    with connect("auditor") as connection:
        check_company(connection, company.name, company.timezone, company.currency)
    stack.api().set_variable(SOURCES_VARIABLE, str(chosen))
    last_sources(stack.settings).write_text(str(chosen))


def _run(as_of: date, sources_file: Path | None, as_json: bool) -> None:
    from include.local.chain import run_chain
    from include.local.summary import lines, summarise
    from include.warehouse.backfill import withdraw
    from include.warehouse.lock import in_the_way

    settings = get_settings()
    chosen, sources = read_sources(settings, sources_file)
    assert_over(as_of, sources.company.timezone)
    tell = say_aside if as_json else say
    with running(settings, sources, tell) as stack:
        use_sources(stack, chosen, sources)
        api = stack.api()
        tell(f"Running {as_of} of {sources.company.name} ({chosen})")
        withdraw(as_of)  # a backfill of the date that never came to its end
        if line := in_the_way(as_of):
            tell(line)
        try:
            with phase("chain", tell):
                follow = run_chain(api, as_of, tell, stack.check_alive)
        except KeyboardInterrupt:
            cut_off(stack, as_of, tell)
            raise
        summary = summarise(as_of)
    if as_json:
        say(json.dumps(summary, default=str))
    else:
        say("\n" + "\n".join(lines(summary)) + "\n")
        say(f"Data docs:   {settings.data_docs / 'index.html'}")
        _say_places(stack, "  (while up: `make up`)")
    if left := what_is_left(follow, as_of):
        raise StratumError(left)


def what_is_left(follow: "Follow", as_of: date) -> str | None:
    """Return what of a date did not go through, and what to do where a person is asked; None where all did."""
    left = []
    if follow.failures:
        left.append(f"{'; '.join(follow.failures)}. It was scored by the model there was before.")
    if follow.sync_failures:
        left.append(f"{'; '.join(follow.sync_failures).rstrip('.')}.")
    if follow.waiting:
        target = follow.waiting[0] if len(follow.waiting) == 1 else "TARGET"
        left.append(
            f"The sync to {', '.join(follow.waiting)} is held and nothing was sent to it. See why: stratum sync status; "
            f"see what: stratum sync plan {target}; send it: stratum sync approve {target} --reason TEXT (or reject)."
        )
    return " ".join([*left, f"All else of {as_of} went through."]) if left else None


def _say_places(stack: Any, when: str) -> None:
    """Say where the UI and the warehouse are; no password is printed."""
    home = stack.settings.home
    say(f"Airflow UI:  {stack.airflow_url}{when}")
    say(f"             user admin, password in {home}/airflow/passwords.json")
    say(f"Warehouse:   {printable(role_url('bi_reader'))}{when}")
    say(f"             passwords of the roles in {home}/pgpass; a prompt: stratum psql")
