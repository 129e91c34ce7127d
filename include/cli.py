"""`stratum`, the command line: the same work as the DAGs, through the DAGs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from include.dates import parse_as_of
from include.errors import StratumError
from include.settings import SIMULATED_SOURCES, SOURCES_VARIABLE, Settings, get_settings
from include.warehouse.connect import ROLES, printable, role_url

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
publish_app = typer.Typer(no_args_is_help=True, help="What is published, and its way back.")
app.add_typer(publish_app, name="publish")
sync_app = typer.Typer(no_args_is_help=True, help="What the CRM would be told, and what it refused.")
app.add_typer(sync_app, name="sync")

AsOf = Annotated[str, typer.Option("--as-of", help="The date to build, YYYY-MM-DD.")]
SourcesFile = Annotated[
    Path | None,
    typer.Option(
        "--sources", help="A sources.yml; if not given, the last one used, at first the simulated company's."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


Say = Callable[[str], None]


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def say_aside(text: str) -> None:
    """Print a line to standard error: progress, where standard output is for a program."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def phase(name: str, tell: Say) -> Iterator[None]:
    """Say how long a phase took."""
    started = time.monotonic()
    yield
    tell(f"[{name}: {time.monotonic() - started:.1f} s]")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def running(settings: Settings, sources: Any, tell: Say) -> Iterator[Any]:
    """Start what is missing of the stack, and at the end, however it comes, stop what was started."""
    from include.local.stack import Stack

    stack = Stack(settings, tell)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)  # SIGINT too: a shell's background job inherits it ignored
    try:
        with phase("start", tell):
            stack.up(sources)
        yield stack
    except KeyboardInterrupt:
        tell("Interrupted: stopping what was started ...")
        raise
    finally:
        # A second Ctrl-C must not leave half of the processes behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if stack.started or stack.started_postgres:
            with phase("stop", tell):
                stack.down_started()


def _sources(settings: Settings, path: Path | None) -> tuple[Path, Any]:
    """Return the sources file and what it says; the simulated company's files are written first.

    Without a path it is STRATUM_SOURCES, else the file this STRATUM_HOME ran on last, else the simulated
    company's. Raises StratumError where it names order files that are not there.
    """
    from include.simulate.company import write_company
    from include.sources.config import load_sources

    os.environ["STRATUM_HOME"] = str(settings.home)
    last = _last_sources(settings)
    if path is None and "sources" not in settings.model_fields_set and last.exists():
        path = Path(last.read_text())
    chosen = (path or settings.sources).resolve()
    if chosen == SIMULATED_SOURCES:
        write_company(settings.home / "simulated")
    sources = load_sources(chosen)
    if sources.orders is not None:
        sources.orders.files()
    return chosen, sources


def _last_sources(settings: Settings) -> Path:
    """Return the file that remembers the sources this home ran on last."""
    return settings.home / "sources.path"


def _use_sources(stack: Any, chosen: Path, sources: Any) -> None:
    """Put these sources in force, for this run and those after it; another company's are refused."""
    from include.sources.loads import check_company
    from include.warehouse.connect import connect

    company = sources.company
    with connect("auditor") as connection:
        check_company(connection, company.name, company.timezone, company.currency)
    stack.api().set_variable(SOURCES_VARIABLE, str(chosen))
    _last_sources(stack.settings).write_text(str(chosen))


def _run(as_of: date, sources_file: Path | None, as_json: bool) -> None:
    from include.local.chain import cancel_chain, run_chain
    from include.local.summary import lines, summarise
    from include.warehouse.lock import fail_run

    settings = get_settings()
    chosen, sources = _sources(settings, sources_file)
    tell = say_aside if as_json else say
    with running(settings, sources, tell) as stack:
        _use_sources(stack, chosen, sources)
        api = stack.api()
        tell(f"Running {as_of} of {sources.company.name} ({chosen})")
        try:
            with phase("chain", tell):
                run_chain(api, as_of, tell)
        except KeyboardInterrupt:
            if stack.started:
                cancel_chain(api, as_of)
                stack.stop_started_processes()
                fail_run(as_of, "interrupted by the user")
            else:
                tell("The chain goes on in Airflow, which was up before.")
            raise
        summary = summarise(as_of)
    if as_json:
        say(json.dumps(summary, default=str))
        return
    say("\n" + "\n".join(lines(summary)) + "\n")
    say(f"Data docs:   {settings.data_docs / 'index.html'}")
    _say_places(stack, "  (while up: `make up`)")


def _say_places(stack: Any, when: str) -> None:
    """Say where the UI and the warehouse are; no password is printed."""
    home = stack.settings.home
    say(f"Airflow UI:  {stack.airflow_url}{when}")
    say(f"             user admin, password in {home}/airflow/passwords.json")
    say(f"Warehouse:   {printable(role_url('bi_reader'))}{when}")
    say(f"             passwords of the roles in {home}/pgpass; a prompt: stratum psql")


@app.command()
def demo() -> None:
    """Run the simulated company's last day and show what came of it."""
    from include.simulate.company import LAST_DAY

    _run(LAST_DAY, SIMULATED_SOURCES, as_json=False)


@app.command()
def run(as_of: AsOf, sources: SourcesFile = None, as_json: AsJson = False) -> None:
    """Run the whole chain for a date; start what is missing and stop what was started."""
    wanted = parse_as_of(as_of)
    if wanted > date.today():
        raise StratumError(
            f"{wanted} is not over yet: its orders are not all there. Choose an earlier --as-of."
        )
    _run(wanted, sources, as_json)


@app.command()
def up(sources: SourcesFile = None) -> None:
    """Start PostgreSQL, Airflow and, where the sources name it, the CRM sandbox, and leave them running."""

    from include.local.stack import Stack

    settings = get_settings()
    chosen, parsed = _sources(settings, sources)
    stack = Stack(settings, say)
    try:
        with phase("start", say):
            stack.up(parsed)
            _use_sources(stack, chosen, parsed)
    except BaseException:
        stack.down_started()
        raise
    _say_places(stack, "")
    say("Schedules are on." if settings.schedule else "Schedules are off; switch them on: make up SCHEDULE=1")


@app.command()
def down() -> None:
    """Stop everything of this STRATUM_HOME."""
    from include.local.stack import Stack

    with phase("stop", say):
        Stack(get_settings(), say).down()


@app.command()
def psql(
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "bi_reader",
    command: Annotated[str | None, typer.Option("-c", help="Run this and leave.")] = None,
) -> None:
    """Open psql on the warehouse, starting the embedded PostgreSQL for as long as it lasts."""
    from include.local.stack import Stack

    if role not in ROLES:
        raise StratumError(f"'{role}' is not a role of the warehouse; the roles are {', '.join(ROLES)}.")
    settings = get_settings()
    stack = Stack(settings, say)
    try:
        stack.start_warehouse()
        environment = os.environ | {"PGPASSFILE": str(settings.home / "pgpass")}
        arguments = ["psql", printable(role_url(role)), *(["-c", command] if command else [])]
        done = subprocess.run(arguments, env=environment, check=False)
    except FileNotFoundError as error:
        raise StratumError("psql is not installed: install the PostgreSQL client tools.") from error
    finally:
        stack.down_started()
    raise typer.Exit(done.returncode)


@publish_app.command("list")
def publish_list(as_json: AsJson = False) -> None:
    """List the published runs that are kept; the current one is marked."""
    from include.warehouse.publish import list_runs

    with _warehouse():
        runs = list_runs()
    if as_json:
        say(json.dumps([asdict(run) for run in runs], default=str))
        return
    if not runs:
        say("Nothing is published yet. Run a date: stratum run --as-of DATE")
    for run in runs:
        mark = "*" if run.is_current else " "
        say(f"{mark} {run.run_id}  as of {run.as_of}  published {run.published_at:%Y-%m-%d %H:%M:%S %Z}")


@publish_app.command("rollback")
def publish_rollback(
    to: Annotated[
        str | None, typer.Option(help="The run to go back to; the one before if not given.")
    ] = None,
) -> None:
    """Let everybody read an earlier published run again."""
    from include.warehouse.publish import rollback

    with _warehouse():
        result = rollback(to)
    say(f"Published is now run {result.run_id}, as of {result.as_of}.")


@sync_app.command("plan")
def sync_plan(
    sources: SourcesFile = None,
    limit: Annotated[int, typer.Option(help="Records to show.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what a sync of the published set would send, old value and new; no call is made."""
    from include.sync.run import plan_sync
    from include.warehouse.publish import list_runs

    _, parsed = _sources(get_settings(), sources)
    with _warehouse():
        current = next((run for run in list_runs() if run.is_current), None)
        if current is None:
            raise StratumError("Nothing is published yet. Run a date first: stratum run --as-of DATE")
        plan = plan_sync(parsed, current.as_of)
    if plan is None:
        raise StratumError("The sources name no sync target, so there is nothing to plan.")
    if as_json:
        say(json.dumps(asdict(plan), default=str))
        return
    for change in plan.changes[:limit]:
        fields = (
            f"{name}: {change.old.get(name, '(not told yet)')} → {new}" for name, new in change.values.items()
        )
        say(f"{change.account_id}  record {change.record_id}  " + ", ".join(fields))
    held = ", ".join(f"{rows} {reason}" for reason, rows in plan.held_reasons.items())
    say(
        f"{plan.queried:,} queried = {len(plan.changes):,} to send + {plan.unchanged:,} unchanged + "
        f"{len(plan.held):,} held" + (f" ({held})" if held else "")
    )
    if plan.unresolved:
        say(f"{plan.unresolved:,} records have an attempt without an answer; a sync reads them back first.")


@sync_app.command("replay")
def sync_replay(
    record: Annotated[
        list[str] | None, typer.Option(help="A CRM record id; all dead letters if none.")
    ] = None,
    sources: SourcesFile = None,
) -> None:
    """Let the next sync send dead letters again."""
    from include.sync.run import replay_dead_letters

    _, parsed = _sources(get_settings(), sources)
    with _warehouse():
        rows = replay_dead_letters(parsed, record)
    say(f"{rows:,} dead letters will be sent again by the next sync.")


@contextmanager
def _warehouse() -> Iterator[None]:
    """Have the warehouse up for a command that needs nothing else."""
    from include.local.stack import Stack

    stack = Stack(get_settings(), say)
    try:
        stack.start_warehouse()
        yield
    finally:
        stack.down_started()


def main() -> None:
    """Run the command line; a fault the user can act on is one line and exit code 1."""
    try:
        app()
    except StratumError as error:
        typer.secho(f"Error: {error}", err=True, fg="red")
        raise SystemExit(1) from None
