"""What the commands share: saying things, the stack, the sources, the warehouse."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from include.dates import day_end
from include.errors import StratumError
from include.settings import SIMULATED_SOURCES, Settings, get_settings
from include.sources.config import Sources

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
        if stack.may_stop():
            with phase("stop", tell):
                stack.down_started()
        else:
            if stack.started:
                wanted = (
                    "`stratum up` was given"
                    if stack.in_use.stays
                    else "another command uses it, and stops it"
                )
                tell(f"Airflow stays up: {wanted}.")
            stack.down_started()


def assert_over(as_of: date, timezone: str) -> None:
    """Raise StratumError where a day is not over in the company's time zone: its rows are not all there."""
    if day_end(as_of, timezone) > datetime.now(UTC):
        raise StratumError(
            f"{as_of} is not over yet in {timezone}: its orders are not all there. Choose an earlier date."
        )


def cut_off(stack: Any, as_of: date, tell: Say) -> bool:
    """End the chain of a date that the user interrupts, and give its build lock back; tell whether it was ended.

    Airflow is stopped in between: a task that runs on could take the lock again. In an Airflow that was up
    before, the chain goes on.
    """
    from include.local.chain import cancel_chain
    from include.warehouse.lock import fail_run

    if not stack.started or stack.is_shared():
        tell(f"The chain of {as_of} goes on in Airflow, which was up before or is used by another command.")
        return False
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it undone
    tell(f"Interrupted: ending the chain of {as_of} ...")
    cancel_chain(stack.api(), as_of)
    stack.stop_started_processes()
    fail_run(as_of, "interrupted by the user")
    return True


def read_sources(settings: Settings, path: Path | None, need_files: bool = True) -> tuple[Path, Any]:
    """Return the sources file and what it says; the simulated company's files are written first.

    Without a path it is STRATUM_SOURCES, else the file this STRATUM_HOME ran on last, else the simulated
    company's. Raises StratumError where it names files of orders or records that are not there, unless they are not
    needed.
    """
    from include.simulate.market.scales import DEMO, DEMO_SEED
    from include.simulate.market.write import write_market
    from include.sources.config import load_sources
    from include.sources.row_sources import FileSource

    os.environ["STRATUM_HOME"] = str(settings.home)
    last = last_sources(settings)
    if path is None and "sources" not in settings.model_fields_set and last.exists():
        path = Path(last.read_text())
    chosen = (path or settings.sources).resolve()
    if chosen == SIMULATED_SOURCES:
        try:
            write_market(settings.home / "simulated", DEMO, DEMO_SEED)
        except StratumError as error:
            raise StratumError(
                f"{settings.home} holds the simulated company of another version of Stratum. Begin anew with `make clean`, "
                "or name another folder by STRATUM_HOME."
            ) from error
    sources = load_sources(chosen)
    if need_files:
        for given in (sources.orders, *sources.record_files.values()):
            if isinstance(given, FileSource):
                given.files()
    return chosen, sources


def last_sources(settings: Settings) -> Path:
    """Return the file that remembers the sources this home ran on last."""
    return settings.home / "sources.path"


def reach_sandbox(sources: Sources, target: str | None = None) -> None:
    """Make the sandbox's connection known to this process, where the sources use it; its own comes from the stack.

    Raises StratumError where a `target` of the sources is about to be asked, is the sandbox, and is down.
    """
    from include.local.environment import SANDBOX_CONNECTION, SANDBOX_VARIABLE, sandbox_connection
    from include.local.secrets import load_secrets
    from include.local.stack import uses_sandbox

    settings = get_settings()
    is_asked = target in sources.sync and sources.sync[target].connection == SANDBOX_CONNECTION
    if is_asked and (down := sandbox_down()):
        raise StratumError(down)
    if uses_sandbox(sources):
        os.environ.setdefault(SANDBOX_VARIABLE, sandbox_connection(settings, load_secrets(settings.home)))


def sandbox_down() -> str | None:
    """Return what to say where the sandbox of this machine is not up; None where it is, or is not ours to start."""
    from include.local.processes import listens

    settings = get_settings()
    host, port = settings.sandbox_host, settings.sandbox_port
    if settings.airflow_url or listens(host, port):
        return None
    return f"The CRM sandbox, http://{host}:{port}, is not up. Start it: make up"


@contextmanager
def warehouse(tell: Say = say) -> Iterator[None]:
    """Have the warehouse up for a command that needs nothing else."""
    from include.local.stack import Stack

    stack = Stack(get_settings(), tell)
    try:
        stack.start_warehouse()
        yield
    finally:
        stack.down_started()
