"""What the stores' file systems are told: logins from a connection or from the vendor's own chain, never from elsewhere."""

import errno
import json
import sys
from collections.abc import Callable

import pytest

from include.errors import StratumError, TransientError
from include.sources.row_sources import Behavior
from include.sources.store_faults import fault
from include.sources.store_options import options_of
from include.sources.stores import ObjectStore

WORD = "hidden-word"
COLUMNS = {"event_name": "a", "event_at": "b"}
Write = Callable[..., None]


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Write:
    def write(**parts: object) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(parts))

    return write


def store_at(url: str, connection: str | None = None) -> ObjectStore:
    return ObjectStore(Behavior.model_validate({"file": url, "connection": connection, "columns": COLUMNS}))


def test_s3_is_told_the_keys_and_the_endpoint(connection: Write) -> None:
    connection(
        conn_type="aws",
        login="key",
        password=WORD,
        extra={
            "endpoint_url": "http://127.0.0.1:9000",
            "region_name": "cn-north-1",
            "aws_session_token": "t",
        },
    )
    options = options_of("s3", "store")
    config = options.pop("config_kwargs")
    assert options == {
        "key": "key",
        "secret": WORD,
        "token": "t",
        "endpoint_url": "http://127.0.0.1:9000",
        "client_kwargs": {"region_name": "cn-north-1"},
    }
    assert config["s3"] == {"addressing_style": "path"}


def test_a_connection_of_s3_that_cannot_be_kept_is_refused(connection: Write) -> None:
    connection(conn_type="aws", password=WORD)
    with pytest.raises(StratumError, match="give both, or none") as refused:
        options_of("s3", "store")
    assert WORD not in str(refused.value)
    connection(conn_type="aws", extra={"role_arn": "arn:aws:iam::1:role/reader"})
    with pytest.raises(StratumError, match="role/reader, which Stratum does not take on"):
        options_of("s3", "store")


def test_google_is_told_the_key_file_or_its_own_chain(connection: Write) -> None:
    key = {"type": "service_account", "private_key": WORD}
    connection(conn_type="google_cloud_platform", extra={"keyfile_dict": json.dumps(key), "project": "p"})
    assert options_of("gs", "store") == {"token": key, "project": "p"}
    connection(conn_type="google_cloud_platform", extra={"key_path": "/keys/reader.json"})
    assert options_of("gcs", "store") == {"token": "/keys/reader.json"}
    assert options_of("gcs", None) == {"token": "google_default"}
    connection(conn_type="google_cloud_platform", extra={"keyfile_dict": WORD})
    with pytest.raises(StratumError, match="keyfile_dict that is not JSON") as refused:
        options_of("gs", "store")
    assert WORD not in str(refused.value)


def test_azure_is_told_a_key_a_principal_or_its_own_chain(connection: Write) -> None:
    fixed = {"assume_container_exists": True, "connection_timeout": 10, "read_timeout": 60, "anon": False}
    connection(conn_type="wasb", login="account", password=WORD)
    assert options_of("az", "store") == fixed | {"account_name": "account", "account_key": WORD}
    connection(
        conn_type="wasb", login="app", password=WORD, extra={"tenant_id": "t", "account_name": "account"}
    )
    assert options_of("abfs", "store") == fixed | {
        "account_name": "account",
        "client_id": "app",
        "client_secret": WORD,
        "tenant_id": "t",
    }
    connection(conn_type="wasb", extra={"connection_string": f"AccountKey={WORD}"})
    assert options_of("abfss", "store") == fixed | {"connection_string": f"AccountKey={WORD}"}
    assert options_of("abfss", None) == fixed


@pytest.mark.parametrize(
    ("url", "extra", "kind"),
    [
        ("gs://box/a/*.csv", {"anon": True}, "GCSFileSystem"),
        ("s3://box/a/*.csv", {"anon": True}, "S3FileSystem"),
        ("az://box/a/*.csv", {"account_name": "account", "account_key": "c2VjcmV0"}, "AzureBlobFileSystem"),
    ],
)
def test_the_file_systems_take_what_they_are_told(
    connection: Write, url: str, extra: dict, kind: str
) -> None:
    connection(conn_type="any", extra=extra)
    assert type(store_at(url, "store")._system).__name__ == kind


def test_a_store_whose_package_is_not_there_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(StratumError, match="az:// needs the package adlfs, which is not installed"):
        store_at("az://box/1.csv")


def test_a_login_that_cannot_be_made_is_told_without_its_words(connection: Write) -> None:
    connection(conn_type="wasb", extra={"connection_string": f"rubbish;{WORD}"})
    with pytest.raises(StratumError, match="az://box/ cannot be read: ValueError") as refused:
        store_at("az://box/1.csv", "store")
    assert WORD not in str(refused.value)


def test_a_fault_is_told_by_what_it_means() -> None:
    def told(error: Exception) -> StratumError:
        found = fault(error, "s3://box/1.csv", "store")
        assert WORD not in str(found)
        return found

    assert "does not let" in str(told(PermissionError(WORD)))
    assert "does not let" in str(told(OSError(f"Forbidden: {WORD}")))  # as gcsfs says it
    assert "There is no s3://box/1.csv" in str(told(FileNotFoundError(WORD)))
    assert isinstance(told(ConnectionResetError(WORD)), TransientError)
    assert isinstance(told(OSError(errno.EBUSY, WORD)), TransientError)
    assert "disk of STRATUM_HOME is full" in str(told(OSError(errno.ENOSPC, WORD)))
    assert "cannot be read: ValueError" in str(told(ValueError(WORD)))
