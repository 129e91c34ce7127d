"""`stratum doctor`: what is wrong with an installation, and what to do."""

import json
import os
from dataclasses import asdict

import typer

from include.commands.common import AsJson, read_sources, say, say_aside
from include.settings import get_settings


def doctor(as_json: AsJson = False) -> None:
    """Look the installation over, one line a check; exit code 1 where one fails. Nothing is changed."""
    from include.local.doctor import FAIL, examine
    from include.local.environment import SANDBOX_VARIABLE, sandbox_connection
    from include.local.stack import Stack

    settings = get_settings()
    stack = Stack(settings, say_aside)
    os.environ.setdefault(SANDBOX_VARIABLE, sandbox_connection(settings, stack.secrets))
    findings = examine(stack, lambda: read_sources(settings, None)[1])
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            say(f"{finding.state:<4}  {finding.check:<14} {finding.says}")
    if any(finding.state == FAIL for finding in findings):
        raise typer.Exit(1)
