"""The embedded PostgreSQL starts whoever we are, once, and stops."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from include.errors import StratumError
from include.warehouse import embedded
from tests.conftest import free_port

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must give up its rights to run PostgreSQL")


@pytest.fixture
def cluster() -> Iterator[embedded.Cluster]:
    """A cluster in a folder that every account may reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="stratum-embedded-"))
    folder.chmod(0o755)
    cluster = embedded.Cluster(
        folder / "postgres" / "data", free_port(), "a'b\"c", embedded.server_programs(None)
    )
    yield cluster
    embedded.stop(cluster)
    shutil.rmtree(folder)


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which `unshare -U` fails, as under Docker's default profile."""
    fake = tmp_path / "unshare"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def answers(cluster: embedded.Cluster) -> bool:
    with psycopg.connect(cluster.url) as connection:
        return connection.execute("select 1").fetchone() == (1,)


def test_it_starts_once_keeps_what_it_holds_and_lets_nobody_in_without_the_password(
    cluster: embedded.Cluster,
) -> None:
    assert embedded.start(cluster)
    assert not embedded.start(cluster)
    with psycopg.connect(cluster.url) as connection:
        connection.execute("create table kept as select 7 as seven")
    embedded.stop(cluster)
    embedded.stop(cluster)
    assert not embedded.is_running(cluster)
    embedded.start(cluster)
    with psycopg.connect(cluster.url) as connection:
        assert connection.execute("select seven from kept").fetchone() == (7,)
        assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.url.replace("postgres:", "postgres:x", 1))


@as_root
def test_root_without_user_namespaces_runs_it_under_another_account(
    cluster: embedded.Cluster, no_namespaces: None
) -> None:
    if not os.access(cluster.bin, os.X_OK) or not _world_reaches(cluster.bin / "postgres"):
        with pytest.raises(StratumError, match="cannot reach"):
            embedded.start(cluster)
        return
    assert embedded.start(cluster)
    assert answers(cluster)
    assert (cluster.data / "PG_VERSION").owner() == embedded.ACCOUNT


@as_root
def test_a_cluster_made_in_a_user_namespace_is_taken_over_by_the_account(
    cluster: embedded.Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    embedded.start(cluster)
    embedded.stop(cluster)
    if not _world_reaches(cluster.bin / "postgres"):
        pytest.skip("the server programs lie where only root may look")
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert embedded.start(cluster)
    assert answers(cluster)


def _world_reaches(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def test_programs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(StratumError, match=r"initdb, pg_ctl, postgres .*STRATUM_POSTGRES_BIN"):
        embedded.server_programs(tmp_path)
