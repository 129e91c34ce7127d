"""`stratum quarantine`: the refused rows, counted and shown, and mapped again after a fix."""

import json
import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from include.commands.common import AsJson, SourcesFile, assert_over, read_sources, say, say_aside, warehouse
from include.dates import parse_as_of
from include.settings import get_settings

if TYPE_CHECKING:
    from include.sources.replay import Replayed

quarantine_app = typer.Typer(
    no_args_is_help=True, help="Rows that were refused: what they are, and the way back in after a fix."
)
Source = Annotated[
    str | None, typer.Option("--source", help="Only this source: orders, behavior, records or crm.")
]
Entity = Annotated[str | None, typer.Option("--entity", help="Only this entity, such as order_lines.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only rows refused for this reason.")]

WHY_LEFT = {
    "later": "dated after {as_of}: replay them with a later --as-of",
    "ambiguous": "of a key that has other lines: only a load of their file tells which line they are",
    "no_longer_kept": "of days whose raw events policy no longer keeps",
    "file_gone": "of files that are not there any more: put them back, and replay again",
    "unreadable_file": "a file that could not be read: the next load of it tries again",
}


@quarantine_app.command("list")
def quarantine_list(
    source: Source = None,
    entity: Entity = None,
    reason: Reason = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Only rows that loads of this date refused.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the refused rows by source, entity and reason, with the first and the last load that refused them."""
    from include.sources.quarantine import counts_in_lines, list_refused

    wanted = parse_as_of(as_of) if as_of else None
    with warehouse(say_aside):
        counts = list_refused(source, entity, reason, wanted)
    if as_json:
        say(json.dumps(counts, default=str))
    elif counts:
        say("\n".join(counts_in_lines(counts)))
    else:
        say("No row was refused.")


@quarantine_app.command("show")
def quarantine_show(
    source: Source = None,
    entity: Entity = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="How many rows at most.")] = 20,
    resolved_too: Annotated[bool, typer.Option("--all", help="Also rows that are settled since.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show refused rows as they stood, each with its file, row and reason."""
    from include.sources.quarantine import row_in_lines, show_refused

    with warehouse(say_aside):
        rows = show_refused(source, entity, reason, limit + 1, resolved_too)
    if as_json:
        say(json.dumps(rows[:limit], default=str, ensure_ascii=False))
        return
    if not rows:
        say("No row is refused." if not resolved_too else "No row was refused.")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in rows[:limit]:
        say("\n".join(row_in_lines(row, width)))
    if len(rows) > limit:
        say(
            f"There are more than {limit}: --limit N shows more, --reason fewer; `stratum quarantine list` counts."
        )


@quarantine_app.command("replay")
def quarantine_replay(
    as_of: Annotated[str, typer.Option("--as-of", help="Rows dated up to this date are replayed.")],
    source: Source = None,
    entity: Entity = None,
    reason: Reason = None,
    sources_file: SourcesFile = None,
    as_json: AsJson = False,
) -> None:
    """Map refused rows again by the sources.yml of today and land those that now pass, as a load of its own."""
    from include.sources.replay import crm_rows_open, record_rows_open, replay

    wanted = parse_as_of(as_of)
    with warehouse(say_aside):
        _, sources = read_sources(get_settings(), sources_file, need_files=False)
        assert_over(wanted, sources.company.timezone)
        done = replay(sources, wanted, source, entity, reason)
        crm, records = crm_rows_open(source), record_rows_open(source, entity)
    if as_json:
        say(json.dumps([asdict(each) for each in done], default=str))
        return
    for each in done:
        say("\n".join(in_lines(each)))
    if crm:
        say(
            f"{crm:,} CRM records stay: they have to be corrected in the CRM, and the next pull brings them then."
        )
    if records:
        say(
            f"{records:,} refused rows of records stay: every load reads their files whole, and lands what then passes: "
            f"stratum run --as-of {wanted}"
        )
    if not done and not crm and not records:
        say("There is nothing to replay.")
    if any(each.landed for each in done):
        say(f"The next build takes them up: stratum run --as-of {wanted}")


def in_lines(done: "Replayed") -> list[str]:
    """Return what a replay did as lines for a terminal."""
    name = f"{done.source}.{done.entity}"
    refused, left = sum(done.refused.values()), sum(done.left.values())
    shown = [
        f"{name}: {done.rows:,} refused rows = {done.landed:,} landed + {done.unchanged:,} held already + "
        f"{refused:,} still refused + {left:,} left" + (f" (load {done.load_id})" if done.load_id else "")
    ]
    shown += [f"    {rows:>9,} {reason}" for reason, rows in sorted(done.refused.items())]
    shown += [
        f"    {rows:>9,} {WHY_LEFT[why].format(as_of=done.as_of)}" for why, rows in sorted(done.left.items())
    ]
    return shown
