"""What fsspec's S3, Google Cloud Storage and Azure file systems are told, from an Airflow connection or the environment.

A connection is written as Airflow's own of the vendor is: aws, google_cloud_platform, wasb. Without one the vendor's own
chain applies: its environment variables, its files, the machine's role.
"""

import json
from collections.abc import Callable
from typing import Any

from include.connections import LoginConnection, get_login
from include.errors import StratumError

CONNECT_S, READ_S, ATTEMPTS = 10, 60, 2
"""Seconds to reach a store and to wait for its next bytes; how often botocore tries one call."""
Options = dict[str, Any]


def s3(found: LoginConnection | None) -> Options:
    """Return the arguments of s3fs.S3FileSystem. Raises StratumError where the connection asks for what is not done."""
    extra = found.extra if found else {}
    config: Options = {
        "connect_timeout": CONNECT_S,
        "read_timeout": READ_S,
        "retries": {"max_attempts": ATTEMPTS, "mode": "standard"},
    }
    options: Options = {"config_kwargs": config}
    if found is None:
        return options
    if role := extra.get("role_arn"):
        raise StratumError(
            f"The connection '{found.conn_id}' asks for the role {role}, which Stratum does not take on. Let the vendor's "
            "own chain do it: leave behavior.connection out and set AWS_PROFILE, or AWS_ROLE_ARN and its token file."
        )
    if bool(found.login) != bool(found.password):
        raise StratumError(
            f"The connection '{found.conn_id}' has one of login (access key id) and password (secret access key): "
            "give both, or none."
        )
    given = {
        "key": found.login,
        "secret": found.password,
        "token": extra.get("aws_session_token"),
        "profile": extra.get("profile_name"),
        "endpoint_url": extra.get("endpoint_url") or found.host,
    }
    options |= {name: value for name, value in given.items() if value}
    if is_true(extra.get("anon")):
        options["anon"] = True
    if region := extra.get("region_name"):
        options["client_kwargs"] = {"region_name": region}
    if "endpoint_url" in options:
        # Buckets as host names need a DNS entry each, which stores of one's own seldom have.
        config["s3"] = {"addressing_style": extra.get("addressing_style", "path")}
    return options


def gcs(found: LoginConnection | None) -> Options:
    """Return the arguments of gcsfs.GCSFileSystem. Raises StratumError where the key is not readable JSON."""
    options: Options = {"token": "google_default"}
    if found is None:
        return options
    extra = found.extra
    if text := extra.get("keyfile_dict"):
        try:
            options["token"] = json.loads(text)
        except ValueError:
            # The parser's own words could show the key.
            raise StratumError(
                f"The connection '{found.conn_id}' has a keyfile_dict that is not JSON: put the service account's key file "
                "there as one JSON text."
            ) from None
    elif path := extra.get("key_path"):
        options["token"] = path
    elif is_true(extra.get("anon")):
        options["token"] = "anon"  # noqa: S105 - gcsfs' word for no login
    if project := extra.get("project"):
        options["project"] = project
    if endpoint := extra.get("endpoint_url") or found.host:
        options["endpoint_url"] = endpoint
    return options


def azure(found: LoginConnection | None) -> Options:
    """Return the arguments of adlfs.AzureBlobFileSystem."""
    # It would otherwise ask for the properties of the container, which a key for its blobs alone may not see.
    options: Options = {
        "assume_container_exists": True,
        "connection_timeout": CONNECT_S,
        "read_timeout": READ_S,
    }
    if found is None:
        return options | {"anon": False}
    extra = found.extra
    is_principal = bool(extra.get("tenant_id"))
    given = {
        "account_name": extra.get("account_name") or (None if is_principal else found.login),
        "account_key": extra.get("account_key") or (None if is_principal else found.password),
        "client_id": extra.get("client_id") or (found.login if is_principal else None),
        "client_secret": extra.get("client_secret") or (found.password if is_principal else None),
        "tenant_id": extra.get("tenant_id"),
        "sas_token": extra.get("sas_token"),
        "connection_string": extra.get("connection_string"),
        "account_host": (found.host or "").partition("://")[2] or None,
    }
    options |= {name: value for name, value in given.items() if value}
    return options | {"anon": is_true(extra.get("anon"))}


def is_true(text: str | None) -> bool:
    """Tell whether an extra of a connection says yes."""
    return (text or "").lower() in ("true", "1", "yes")


# gcsfs' own choice of a class asks Google over gRPC for the kind of each bucket, wherever the endpoint is.
VENDORS: dict[str, tuple[str, str, Callable[[LoginConnection | None], Options]]] = {
    "s3": ("s3fs", "S3FileSystem", s3),
    "gs": ("gcsfs.core", "GCSFileSystem", gcs),
    "gcs": ("gcsfs.core", "GCSFileSystem", gcs),
    "az": ("adlfs", "AzureBlobFileSystem", azure),
    "abfs": ("adlfs", "AzureBlobFileSystem", azure),
    "abfss": ("adlfs", "AzureBlobFileSystem", azure),
}
"""By the scheme of a URL: the module and the class that speak to the store, and what gives its arguments."""


def options_of(scheme: str, connection: str | None) -> Options:
    """Return the arguments of the file system of a scheme. Raises StratumError where the connection cannot be used."""
    return VENDORS[scheme][2](get_login(connection) if connection else None)
