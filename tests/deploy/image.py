"""Build what the Dockerfile builds, without Docker: its COPY and RUN steps, in a folder."""

import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from include.settings import PROJECT_DIR

WORKDIR = "/opt/stratum"
HOME = "/var/lib/stratum"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "target", "logs", ".user.yml")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions as (name, arguments), comments left out and lines joined."""
    lines = (PROJECT_DIR / "Dockerfile").read_text().splitlines()
    joined = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def arguments(name: str) -> list[str]:
    """Return the arguments of every instruction of a name."""
    return [rest for each, rest in instructions() if each == name]


@dataclass
class Image:
    """The folder that stands for the image's root, and what was done in it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        """The project's folder in the image."""
        return self.root / WORKDIR.lstrip("/")

    @property
    def home(self) -> Path:
        """STRATUM_HOME in the image."""
        return self.root / HOME.lstrip("/")

    def inside(self, text: str) -> str:
        """Return text with the image's folders where they are here."""
        return text.replace(WORKDIR, str(self.project)).replace(HOME, str(self.home))


def base_path() -> str:
    """Return the PATH that stands for the base image's: the system's Python where it can make environments."""
    python = Path("/usr/bin/python3.11")
    if python.exists() and subprocess.run([python, "-c", "import ensurepip"], check=False).returncode == 0:
        return "/usr/bin:/bin"
    return os.environ["PATH"]


def build(root: Path, **changed: str) -> Image:
    """Do the Dockerfile's steps under `root`, with what is installed nowhere else to be seen.

    Steps that make the account are skipped and noted. `changed` adds to the variables of ENV, or replaces them.
    Raises CalledProcessError where a step fails.
    """
    image = Image(root)
    image.project.mkdir(parents=True)
    image.home.mkdir(parents=True)
    image.environment = {"PATH": base_path(), "HOME": str(image.home), **changed}
    # How this machine reaches the package registry is not the image's business.
    image.environment |= {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("PIP_", "UV_", "SSL_", "REQUESTS_"))
    } | {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    for name, rest in instructions():
        if name == "ENV":
            for pair in shlex.split(rest):
                key, _, value = pair.partition("=")
                value = changed.get(key, value)
                image.environment[key] = image.inside(value.replace("$PATH", image.environment["PATH"]))
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                _copy(PROJECT_DIR / source, image.project / target)
        elif name == "RUN" and rest.startswith("useradd"):
            image.skipped.append(rest)
        elif name == "RUN":
            started = time.monotonic()
            subprocess.run(
                ["sh", "-c", image.inside(rest)],
                cwd=image.project,
                env=image.environment,
                check=True,
                stdin=subprocess.DEVNULL,
            )
            image.seconds[rest] = time.monotonic() - started
    return image


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=LEFT_OUT, dirs_exist_ok=True)
    else:
        into = target / source.name if target.is_dir() or not target.suffix else target
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, into)
