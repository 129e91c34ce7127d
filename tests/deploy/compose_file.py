"""docker-compose.yml as Compose reads it: variables filled in, each service's environment and command."""

import re
from typing import Any

import yaml

from include.settings import PROJECT_DIR

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?(?P<complaint>[^}]*))?\}")


def text() -> str:
    """Return the file as it is."""
    return (PROJECT_DIR / "docker-compose.yml").read_text()


def variables() -> dict[str, bool]:
    """Return the name of each variable the file asks of .env, and whether it must be set."""
    return {each["name"]: each["complaint"] is not None for each in VARIABLE.finditer(text())}


def compose(values: dict[str, str]) -> dict[str, Any]:
    """Return the file with its variables filled in; raises KeyError for a required one that is not given."""
    return _filled(yaml.safe_load(text()), values)


def services(values: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the services by name."""
    return compose(values)["services"]


def _filled(node: Any, values: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        given = values.get(match["name"], match["default"])
        if given is None:
            raise KeyError(match["name"])
        return given

    return VARIABLE.sub(value, node).replace("$$", "$")
