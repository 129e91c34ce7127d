"""Events in Azure Blob Storage, against Azurite where `npm install -g azurite` has put it on the PATH."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from include.errors import StratumError
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources
from include.sources.row_sources import Behavior, Company
from tests.conftest import Warehouse
from tests.fixtures.books import counts

AZURITE = shutil.which("azurite-blob")
# Azurite's own account and key, the same everywhere: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(AZURITE is None, reason="azurite-blob is not on the PATH"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--blobHost", "127.0.0.1"]
    place = ["--blobPort", str(port), "--location", str(tmp_path_factory.mktemp("azurite"))]
    server = subprocess.Popen([str(AZURITE), *options, *place])
    found = f"http://127.0.0.1:{port}/{ACCOUNT}"
    try:
        for _ in range(100):
            try:
                BlobServiceClient.from_connection_string(login(found), retry_total=0).get_service_properties()
                break
            except AzureError:
                time.sleep(0.2)
        yield found
    finally:
        server.terminate()
        server.wait()


def login(address: str, key: str = KEY) -> str:
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={address};"


def test_objects_of_azure_land_once_and_a_changed_one_anew(
    warehouse: Warehouse, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def connect(key: str) -> None:
        value = {"conn_type": "wasb", "extra": {"connection_string": login(address, key)}}
        monkeypatch.setenv("AIRFLOW_CONN_BLOBS", json.dumps(value))

    box = BlobServiceClient.from_connection_string(login(address)).create_container("events")
    box.upload_blob("a/2024/1.csv", "who,what,placed\nA,login,2024-03-01 09:00\n")
    box.upload_blob("a/2.csv", "who,what,placed\nB,login,2024-03-02 09:00\n")
    columns = {"customer_id": "who", "event_name": "what", "event_at": "placed"}
    given = {"file": "az://events/a/**/*.csv", "connection": "blobs", "columns": columns}
    company = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
    sources = Sources(company=company, behavior=Behavior.model_validate(given))
    connect("c2VjcmV0LXdvcmQ=")
    with pytest.raises(StratumError, match="does not let Stratum read az://events") as fault:
        ingest_behavior(sources, date(2024, 3, 3))
    assert "c2VjcmV0" not in str(fault.value)
    connect(KEY)
    assert counts(ingest_behavior(sources, date(2024, 3, 3))) == (2, 2, 0, 0, 0, 0, 0)
    assert counts(ingest_behavior(sources, date(2024, 3, 3))) == (0, 0, 0, 0, 0, 0, 0)
    box.upload_blob("a/2.csv", "who,what,placed\nC,login,2024-03-02 09:00\n", overwrite=True)
    assert counts(ingest_behavior(sources, date(2024, 3, 3))) == (1, 1, 0, 0, 0, 0, 0)
    assert warehouse.rows(
        "select path, customer_id from raw_files.events join raw_files.event_files using (file_id) "
        "where (file_id, source_row) not in (select file_id, source_row from raw_files.superseded_events) order by 2"
    ) == [("az://events/a/2024/1.csv", "A"), ("az://events/a/2.csv", "C")]
