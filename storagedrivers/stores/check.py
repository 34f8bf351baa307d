"""Says what is wrong with a store: rows, directories, kept headers, mounts and locks against each
other; deep, also the content of every layer against its tar.

Changes nothing, and may run while the store is used. What it reads first may have changed by the
time it reads the rest, so nothing is reported before the row was read once more.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import CorruptStoreError, StorageDriversError
from storagedrivers.model import FlawKind
from storagedrivers.stores import records
from storagedrivers.stores.content import blob_path, write_tar
from storagedrivers.stores.locks import is_locked
from storagedrivers.stores.orphans import OF_VOLUMES, Kind, Orphan, driver_or_none, find_orphans
from storagedrivers.stores.records import Layer, LayerState

if TYPE_CHECKING:
    from storagedrivers.archive.verify import Difference
    from storagedrivers.model import Volume
    from storagedrivers.stores.layers import LayerStore

MAX_DIFFERENCES = 1000
"""Of one layer that are reported."""

_ZSTD = b"\x28\xb5\x2f\xfd"


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """Something is lost, or is not what it was."""

    WARNING = "warning"
    """Something does not work as it should; nothing is lost."""

    NOTE = "note"
    """Something takes room."""


class Remedy(StrEnum):
    """What ``repair`` does about it."""

    COLLECT = "collect"
    """Removes it: it belongs to nothing."""

    MEND = "mend"
    """Puts it right; nothing is lost."""

    TAKE_AWAY = "take-away"
    """Removes a file that does not belong there; with ``--yes`` only."""

    QUARANTINE = "quarantine"
    """Keeps the layer from being found by its tar's digest; with ``--yes`` removes it."""

    ANEW = "anew"
    """Makes an empty directory in the place of one that is lost; with ``--yes`` only."""

    NONE = "none"
    """Nothing."""


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        code: what, stable for scripts.
        severity: how bad it is.
        layer: the layer's id, or empty.
        path: the file or directory at fault; inside of a layer it begins at the layer's root.
        message: a sentence.
        action: what to do, a sentence.
        remedy: what ``repair`` does.
    """

    code: str
    severity: Severity
    layer: str
    path: str
    message: str
    action: str
    remedy: Remedy
    subject: Orphan | Difference | FlawKind | Volume | None = None


_HALF_MADE = (Kind.ROW, Kind.VOLUME_ROW)
_ANEW = "storagedrivers repair, then add the layer from its tar again"
_GC = "storagedrivers gc"
_REPAIR = "storagedrivers repair"
_REPAIR_DEEP = "storagedrivers repair --deep"  # what only a deep check finds
_ANEW_DEEP = f"{_REPAIR_DEEP}, then add the layer from its tar again"


def check(
    store: LayerStore,
    *,
    deep: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[Finding]:
    """Everything that is wrong with the store.

    Args:
        deep: read every layer that came in as a tar, and compare it with that.
        progress: with *deep*, gets the number of layers done and of all.

    Yields:
        Findings as they are found; none for a store that is sound.
    """
    yield from _database(store)
    for orphan in find_orphans(store):
        if (finding := _of_orphan(store, orphan)) is not None:
            yield finding
    layers = records.find(store.database, "WHERE state = 'ready' ORDER BY number")
    known = {layer.id: layer for layer in layers}
    flawed = set()
    for layer in layers:
        found = [*_structure(store, layer, known)]
        if found and _is_still_there(store, layer):
            flawed.add(layer.id)
            yield from found
    yield from _images(store, deep=deep)
    yield from _containers(store)
    yield from _volumes(store)
    if deep:
        yield from _deep(store, layers, known, flawed, progress)


def _database(store: LayerStore) -> Iterator[Finding]:
    rows = store.database.rows("PRAGMA quick_check(10)")
    problems = [str(row[0]) for row in rows if row[0] != "ok"]
    if problems:
        yield Finding(
            "database",
            Severity.ERROR,
            "",
            store.database.path,
            f"the database is damaged: {'; '.join(problems)}",
            "restore it from a backup",
            Remedy.NONE,
        )


def _of_orphan(store: LayerStore, orphan: Orphan) -> Finding | None:
    if orphan.in_use:
        return None
    action, severity = _GC, Severity.NOTE
    if orphan.kind is Kind.MOUNT_ROW:
        from storagedrivers.stores.mounts import boot_id

        if orphan.key[2] != boot_id():
            return None  # a reboot ends every mount; its rows go when their layers are touched
        action, severity = _REPAIR, Severity.WARNING
    elif orphan.kind in _HALF_MADE:
        action, severity = _REPAIR, Severity.WARNING
    of_layer = bool(orphan.owner) and orphan.kind not in OF_VOLUMES
    row = of_layer and records.by_id(store.database, orphan.owner) is not None
    return Finding(
        f"orphan-{orphan.kind}" if orphan.kind not in _HALF_MADE else "half-made",
        severity,
        orphan.owner if row else "",
        orphan.path,
        orphan.reason,
        action,
        Remedy.COLLECT,
        orphan,
    )


# Images and containers


def _images(store: LayerStore, *, deep: bool) -> Iterator[Finding]:
    """Their files, by size; deep, by digest."""
    rows = store.database.rows("SELECT DISTINCT digest, size FROM image_blobs ORDER BY digest")
    for digest, size in rows:
        path = blob_path(store.root, digest)
        problem = _blob_problem(path, digest, size, deep=deep)
        images = store.database.rows("SELECT image FROM image_blobs WHERE digest = ?", digest)
        if problem and images:
            yield Finding(
                "image-file",
                Severity.ERROR,
                "",
                path,
                f"{problem}: a file of image {images[0][0]}",
                "remove the image, and load it again",
                Remedy.NONE,
            )


def _blob_problem(path: str, digest: str, size: int, *, deep: bool) -> str:
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return f"it has {found} bytes, and had {size}"
            if deep and f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != digest:
                return "it is not what it was: its digest is another one"
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return ""


def _containers(store: LayerStore) -> Iterator[Finding]:
    """Their directories; their layers are looked at as layers."""
    query = "SELECT id, name FROM containers WHERE state = 'ready'"
    for container, name in store.database.rows(query):
        path = os.path.join(store.root, "containers", container)
        if os.path.isdir(path):
            continue
        if store.database.row(f"{query} AND id = ?", container) is not None:
            yield Finding(
                "missing-container-directory",
                Severity.WARNING,
                "",
                path,
                f"the directory of container {name} is missing: its log and its exit code are lost",
                "start it, which makes another, or remove it",
                Remedy.NONE,
            )


def _volumes(store: LayerStore) -> Iterator[Finding]:
    from storagedrivers.stores import volume_check

    return volume_check.find(store)


def _is_still_there(store: LayerStore, layer: Layer) -> bool:
    now = records.by_id(store.database, layer.id)
    return now is not None and now.state is LayerState.READY and now.writable == layer.writable


# Structure


def _structure(store: LayerStore, layer: Layer, known: dict[str, Layer]) -> Iterator[Finding]:
    yield from _parent(store, layer, known)
    driver = driver_or_none(store, layer.driver)
    path = os.path.join(store.root, layer.driver, layer.id)
    if driver is None:
        yield Finding(
            "missing-driver",
            Severity.ERROR,
            layer.id,
            path,
            f"the driver {layer.driver} is not installed, or does not load",
            f"install the package of the driver {layer.driver}",
            Remedy.NONE,
        )
        return
    for flaw in driver.flaws(layer.id, writable=layer.writable):
        if flaw.kind is FlawKind.SEALED and is_locked(store.lock_path(layer.id)):
            continue  # someone is sealing it, and its row follows
        lost = flaw.kind is FlawKind.LOST
        yield Finding(
            flaw.code,
            Severity.ERROR if lost else Severity.WARNING,
            layer.id,
            path,
            flaw.message,
            _ANEW if lost else _REPAIR,
            Remedy.QUARANTINE if lost else Remedy.MEND,
            flaw.kind,
        )
        if lost:
            return
    yield from _kept(store, layer)


def _parent(store: LayerStore, layer: Layer, known: dict[str, Layer]) -> Iterator[Finding]:
    if layer.parent is None:
        return
    parent = known.get(layer.parent) or records.by_id(store.database, layer.parent)
    problem = None
    if parent is None:
        problem = "missing-parent", f"the layer below it, {layer.parent}, has no row"
    elif parent.state is not LayerState.READY:
        problem = "missing-parent", f"the layer below it, {layer.parent}, is {parent.state}"
    elif parent.driver != layer.driver:
        problem = "foreign-parent", f"the layer below it, {layer.parent}, is of {parent.driver}"
    elif parent.writable:
        problem = "writable-parent", f"the layer below it, {layer.parent}, is not sealed"
    elif parent.depth != layer.depth - 1:
        problem = "wrong-depth", f"its depth is {layer.depth}, and its parent's {parent.depth}"
    if problem is not None:
        yield Finding(
            problem[0],
            Severity.ERROR,
            layer.id,
            os.path.join(store.root, layer.driver, layer.id),
            problem[1],
            _ANEW,
            Remedy.QUARANTINE,
        )


def _kept(store: LayerStore, layer: Layer) -> Iterator[Finding]:
    """Layers that came in as a tar have its headers."""
    if layer.compression is None:
        return
    path = store.kept_path(layer.id)
    problem = None
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size <= len(_ZSTD):
            problem = "damaged-kept", "the headers kept of its tar are damaged"
        else:
            with open(path, "rb") as file:
                if file.read(len(_ZSTD)) != _ZSTD:
                    problem = "damaged-kept", "the headers kept of its tar are damaged"
    except FileNotFoundError:
        problem = "missing-kept", "the headers kept of its tar are missing"
    if problem is not None:
        yield _kept_finding(layer, path, *problem)


def _kept_finding(layer: Layer, path: str, code: str, message: str) -> Finding:
    return Finding(
        code,
        Severity.ERROR,
        layer.id,
        path,
        f"{message}: the layer can be used, and not be exported as it came in",
        _ANEW,
        Remedy.QUARANTINE,
    )


# Content


def _deep(
    store: LayerStore,
    layers: list[Layer],
    known: dict[str, Layer],
    flawed: set[str],
    progress: Callable[[int, int], object] | None,
) -> Iterator[Finding]:
    wanted = [layer for layer in layers if not layer.writable and layer.diff_id is not None]
    wrong: dict[str, frozenset[bytes]] = {}
    for number, layer in enumerate(wanted):
        if progress is not None:
            progress(number, len(wanted))
        # What lies on a layer that is flawed itself cannot be looked at without mending it.
        lowers = store.lowers(layer.id)
        if flawed.isdisjoint((layer.id, *lowers)):
            below = frozenset[bytes]().union(*(wrong.get(one, frozenset()) for one in lowers))
            found = [*_content(store, layer, below)]
            if found and _is_still_there(store, layer):
                yield from found
                wrong[layer.id] = frozenset(os.fsencode(one.path[1:]) for one in found)
    if progress is not None:
        progress(len(wanted), len(wanted))


def _content(store: LayerStore, layer: Layer, wrong_below: frozenset[bytes]) -> Iterator[Finding]:
    kept = store.kept_path(layer.id)
    place = os.path.join(store.root, layer.driver, layer.id)
    try:
        if os.path.exists(kept):
            differences, hides_bytes = differences_of(store, layer)
            for one in differences:
                if not is_from_below(one, wrong_below):
                    yield _of_difference(layer, one)
        else:  # its diff is against what lies below, so it would be wrong with that
            hides_bytes = bool(wrong_below)
        found = None if hides_bytes else write_tar(store, layer)[0]
    except CorruptStoreError as error:
        if kept in error.brief:
            message = "the headers kept of its tar are damaged"
            yield _kept_finding(layer, kept, "damaged-kept", message)
        else:
            yield _content_finding(layer, place, str(error))
        return
    except (OSError, StorageDriversError) as error:
        yield Finding(
            "unreadable",
            Severity.ERROR,
            layer.id,
            place,
            f"it cannot be read: {error}",
            "see the kernel's log (dmesg): the disk may be failing",
            Remedy.NONE,
        )
        return
    if found is not None and found != layer.diff_id:
        suspects = _suspects(store, layer, kept)
        yield _content_finding(
            layer, place, f"its content gives {found}, and {layer.diff_id} came in{suspects}"
        )


def is_from_below(difference: Difference, wrong_below: frozenset[bytes]) -> bool:
    """Whether it only differs from what is wrong in the layers below, and not from its tar."""
    node = difference.node
    if not wrong_below or (node is not None and node.origin is None):
        return False
    path = difference.path if node is None or node.origin is None else node.origin
    while path:
        if path in wrong_below:
            return True
        path = path.rpartition(b"/")[0]
    return b"" in wrong_below and not difference.path


def _content_finding(layer: Layer, place: str, message: str) -> Finding:
    return Finding(
        "content", Severity.ERROR, layer.id, place, message, _ANEW_DEEP, Remedy.QUARANTINE
    )


def differences_of(store: LayerStore, layer: Layer) -> tuple[list[Difference], bool]:
    """What is not as the tar has it; and whether bytes are missing, so a digest says no more."""
    from itertools import islice

    from storagedrivers.archive.verify import What, verify

    kept = store.kept_path(layer.id)
    driver = store.driver_for(layer.driver)
    if driver.exceptions:  # it says itself that it does not keep all metadata
        return [], False
    with store.opened(layer) as opened:
        found = verify(
            kept,
            opened.upper_fd,
            lower_fd=opened.lower_fd,
            whiteouts=opened.whiteouts,
            warnings=layer.warnings,
            touched_since=os.stat(kept).st_mtime_ns,
        )
        differences = [*islice(found, MAX_DIFFERENCES)]
    bytes_are_missing = {What.MISSING, What.SIZE, What.TYPE, What.CONTENT}
    return differences, any(one.what in bytes_are_missing for one in differences)


def _of_difference(layer: Layer, difference: Difference) -> Finding:
    from storagedrivers.archive.mend import MENDABLE
    from storagedrivers.archive.verify import What

    if difference.what in MENDABLE:
        severity, remedy, action = Severity.WARNING, Remedy.MEND, _REPAIR_DEEP
    elif difference.what is What.EXTRA:
        severity, remedy, action = Severity.WARNING, Remedy.TAKE_AWAY, f"{_REPAIR_DEEP} --yes"
    else:
        severity, remedy, action = Severity.ERROR, Remedy.QUARANTINE, _ANEW_DEEP
    path = "/" + os.fsdecode(difference.path)
    return Finding(
        str(difference.what),
        severity,
        layer.id,
        path,
        difference.message,
        action,
        remedy,
        difference,
    )


def _suspects(store: LayerStore, layer: Layer, kept: str) -> str:
    """The files that were touched after the layer was whole, if that tells some from the others."""
    from storagedrivers.archive.verify import touched_files

    try:
        with store.opened(layer, alone=True) as opened:
            touched, untouched = touched_files(
                kept, opened.upper_fd, since=os.stat(kept).st_mtime_ns
            )
    except (OSError, StorageDriversError):
        return ""
    if not touched or not untouched:  # a copy of a store has touched all
        return ""
    names = ", ".join("/" + os.fsdecode(path) for path in touched[:5])
    return f"; touched since: {names}{' and others' if len(touched) > 5 else ''}"
