"""Long-running processes of a local installation: start, find again, stop with all their children."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

STOP_TIMEOUT_S = 10


@dataclass(frozen=True)
class Process:
    """A process kept under `folder`: its pid file, its log, and the command that starts it."""

    name: str
    folder: Path
    command: tuple[str, ...]

    @property
    def log(self) -> Path:
        """Where the process writes what it prints."""
        return self.folder / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """The pid and the start time of the process: a pid alone may have been given to another since."""
        return self.folder / f"{self.name}.pid"

    def find(self) -> psutil.Process | None:
        """Return the running process, or None; the process of another program never passes for ours."""
        if not self.pid_file.exists():
            return None
        noted = json.loads(self.pid_file.read_text())
        try:
            process = psutil.Process(noted["pid"])
            same = abs(process.create_time() - noted["started"]) < 1 and process.status() != "zombie"
        except psutil.NoSuchProcess:
            return None
        return process if same else None

    def session(self) -> int | None:
        """Return the session of the process, also where it was killed and left children behind; None where none is.

        The system gives no new process the id of a session that still has members: one of that id that is not
        ours means that ours is gone.
        """
        if not self.pid_file.exists():
            return None
        pid = json.loads(self.pid_file.read_text())["pid"]
        return pid if self.find() or not psutil.pid_exists(pid) else None

    def start(self, environment: dict[str, str]) -> None:
        """Start the process in a session of its own, so that Ctrl-C in the terminal does not reach it.

        What a process that was killed has left running is ended first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stop([self])
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                cwd=self.folder,
            )
        noted = {"pid": started.pid, "started": psutil.Process(started.pid).create_time()}
        self.pid_file.write_text(json.dumps(noted))

    def tail(self, characters: int = 300) -> str:
        """Return the end of the log on one line, for an error message."""
        if not self.log.exists():
            return ""
        return " ".join(self.log.read_text(errors="replace").split())[-characters:]


def listens(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Tell whether anything accepts connections there."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True


def stop(processes: list[Process]) -> None:
    """Stop these processes and all they started: first asked, after 10 s killed. None may be left.

    Each was started as the leader of a session, and what it starts stays in it: the session, not the tree
    of parents, tells what is ours, also when a parent has died before its child.
    """
    sessions = []
    for process in processes:
        if session := process.session():
            sessions.append(session)
        if found := process.find():
            found.send_signal(signal.SIGTERM)
    leaders = [psutil.Process(pid) for pid in sessions if psutil.pid_exists(pid)]
    psutil.wait_procs(leaders, timeout=STOP_TIMEOUT_S)
    while left := _members(sessions):
        for process_left in left:
            process_left.kill()
        psutil.wait_procs(left, timeout=5)
    for process in processes:
        process.pid_file.unlink(missing_ok=True)


def _members(sessions: list[int]) -> list[psutil.Process]:
    """Return the living processes of these sessions."""
    members = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) in sessions and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process)
        except ProcessLookupError:
            continue
    return members


def wait_until(ready: Callable[[], bool], timeout_s: float, every_s: float = 0.1) -> bool:
    """Call `ready` until it is true or the time is over; tell which."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
