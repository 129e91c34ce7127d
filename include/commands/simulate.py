"""`stratum simulate`: a simulated company of any size, written into files."""

from pathlib import Path
from typing import Annotated

import typer

from include.commands.common import phase, say


def simulate(
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    scale: Annotated[str, typer.Option(help="XS: 600 accounts; S: 2,000; M: 20,000; L: 200,000.")] = "S",
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes another company.")] = 1,
) -> None:
    """Write a simulated company with its hidden truth, and a sources.yml that `stratum run` reads."""
    from include.simulate.market.scales import LAST_DAY, scale_of
    from include.simulate.market.write import write_market

    chosen = scale_of(scale)
    with phase("simulate", say):
        write_market(to, chosen, seed, say)
    say(f"{to}/sources.yml describes it; its last day is {LAST_DAY}:")
    say(f"    stratum run --as-of {LAST_DAY} --sources {to}/sources.yml")
