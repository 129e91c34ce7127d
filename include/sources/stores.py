"""Event files in an object store: S3, Google Cloud Storage and Azure, by fsspec.

A store is listed, and objects are brought to a folder below STRATUM_HOME to be read there: DuckDB reads a file twice, and
both times it must be the same version, whole. docs/decisions/0015-event-files.md.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from glob import has_magic
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from include.errors import StratumError, TransientError
from include.settings import get_settings
from include.sources.event_files import ListedFile
from include.sources.row_sources import FILE_KINDS, Behavior, FileSource
from include.sources.store_faults import fault, kind_of_fault
from include.sources.store_options import VENDORS, options_of

PAUSES_S = (1, 4)
"""Before an object is asked for again, where the connection was lost or it came with another size."""
VERSION_KEYS = ("generation", "ETag", "etag")
"""Under what the stores tell the version of an object; each changes when the content does."""
CHANGED_KEYS = ("LastModified", "last_modified", "mtime", "updated")

T = TypeVar("T")
log = logging.getLogger(__name__)


class ObjectStore:
    """The store that a mapping of events names, reached with its connection."""

    def __init__(self, given: Behavior, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises StratumError where the package that speaks to it is not there, or the connection cannot be used."""
        scheme, _, rest = given.file.partition("://")
        module, name, _ = VENDORS[scheme]
        try:
            kind = getattr(import_module(module), name)
        except ImportError as error:
            package = module.partition(".")[0]
            raise StratumError(
                f"{given.file}: {scheme}:// needs the package {package}, which is not installed. Install it beside Stratum: "
                f".venv/bin/python -m pip install {package}"
            ) from error
        self._given = given
        self._root = f"{scheme}://{rest.partition('/')[0]}/"
        """The bucket or container, with the account where the URL names it."""
        self._sleep = sleep
        options = kind._get_kwargs_from_urls(given.file) | options_of(scheme, given.connection)
        try:
            # A file system of its own, as the login may change, and without a cache, as the objects do.
            self._system: Any = kind(skip_instance_cache=True, use_listings_cache=False, **options)
        except Exception as error:  # noqa: BLE001 - each vendor's library raises what it likes
            raise fault(error, self._root, given.connection) from None

    def files(self) -> list[ListedFile]:
        """Return the objects as they are now, in the order of their keys.

        Raises StratumError where there is none, TransientError where the store does not answer.
        """
        pattern = self._system._strip_protocol(self._given.file)
        found = self._patiently(lambda: self._listed(pattern), self._given.file)
        objects = [info for info in found if info["type"] == "file" and info["name"].endswith(FILE_KINDS)]
        if not objects:
            raise StratumError(
                f"There is no object {self._given.file} (behavior.file of the sources). Put one there, or correct the "
                "pattern."
            )
        keys = {info["name"]: info["name"].partition("/")[2] for info in objects}
        shared = _shared_folder(list(keys.values()))
        return [
            ListedFile(
                self._root + keys[info["name"]],
                int(info["size"]),
                _version(info),
                keys[info["name"]][len(shared) :],
                None,
                _changed_at(info),
            )
            for info in sorted(objects, key=lambda info: keys[info["name"]])
        ]

    def bring(self, file: ListedFile, folder: Path, number: int) -> ListedFile:
        """Copy the listed version of an object into a folder and return it as readable there.

        What comes cut off, or over a connection that is lost, is asked for again. Raises TransientError where that does
        not help, or where the object is another version by now, or is gone.
        """
        kind = next(kind for kind in sorted(FILE_KINDS, key=len, reverse=True) if file.path.endswith(kind))
        local = folder / f"{number}{kind}"
        self._patiently(lambda: self._copy(file, local), file.path)
        return replace(file, local=local)

    def _copy(self, file: ListedFile, local: Path) -> None:
        name = self._system._strip_protocol(file.path)
        try:
            self._system.get_file(name, str(local))
            now = self._system.info(name)
        except Exception as error:
            if kind_of_fault(error) != "missing":
                raise
            raise TransientError(f"{file.path} is gone since it was listed. Load the date again.") from None
        # Parts of two versions may have been joined: only what is the same version before and after is whole.
        if (int(now["size"]), _version(now)) != (file.size, file.stamp):
            raise TransientError(f"{file.path} has changed since it was listed. Load the date again.")
        if (size := local.stat().st_size) != file.size:
            raise ConnectionError(f"{size} of {file.size} bytes")

    def _listed(self, pattern: str) -> list[dict[str, Any]]:
        if not has_magic(pattern):
            return [self._system.info(pattern)]
        found = list(self._system.glob(pattern, detail=True).values())
        if not found:
            # A bucket that is not there, or may not be seen, looks like one without such an object.
            self._system.ls(pattern.partition("/")[0])
        return found

    def _patiently(self, ask: Callable[[], T], place: str) -> T:
        """Return what `ask` does, asked again after a while where the connection is lost; `place` is a URL."""
        for pause in PAUSES_S:
            try:
                return ask()
            except StratumError:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                if kind_of_fault(error) != "lost":
                    raise fault(error, place, self._given.connection) from None
                log.warning(
                    "%s: the connection was lost (%s); it is tried again.", place, type(error).__name__
                )
            self._sleep(pause)
        try:
            return ask()
        except StratumError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise fault(error, place, self._given.connection) from None


def in_store(given: FileSource) -> bool:
    """Tell whether the files of a mapping lie in an object store."""
    return "://" in given.file


@contextmanager
def brought(given: Behavior, files: Sequence[ListedFile]) -> Iterator[list[ListedFile]]:
    """Yield files as they can be read: those of a store are copied to a folder that is removed afterwards.

    Raises StratumError, TransientError where trying again may help, where one cannot be copied whole.
    """
    if not in_store(given):
        yield list(files)
        return
    spool = get_settings().home / "tmp"
    spool.mkdir(parents=True, exist_ok=True)
    store = ObjectStore(given)
    with tempfile.TemporaryDirectory(dir=spool, prefix="objects-") as folder:
        yield [store.bring(file, Path(folder), number) for number, file in enumerate(files, 1)]


def _version(info: dict[str, Any]) -> str:
    """Return what tells one version of an object from the next."""
    return next(str(info[key]).strip('"') for key in (*VERSION_KEYS, *CHANGED_KEYS) if info.get(key))


def _changed_at(info: dict[str, Any]) -> datetime | None:
    found = next((info[key] for key in CHANGED_KEYS if info.get(key)), None)
    return datetime.fromisoformat(found) if isinstance(found, str) else found


def _shared_folder(keys: list[str]) -> str:
    """Return the folders that all keys begin with, up to the last /."""
    shared = ""
    for parts in zip(*(key.split("/")[:-1] for key in keys), strict=False):
        if len(set(parts)) > 1:
            break
        shared += parts[0] + "/"
    return shared
