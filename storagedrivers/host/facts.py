"""HostFacts: everything a driver's probe may ask of a host, frozen, to and from JSON."""

from __future__ import annotations

import json
import re
import types
import typing
from typing import Any, NamedTuple, TypeVar

from storagedrivers.errors import ConfigError
from storagedrivers.linux import kernel
from storagedrivers.model import Reason

T = TypeVar("T")

PROBLEMS = ("", Reason.READ_ONLY, Reason.NOT_WRITABLE, Reason.NO_SPACE)

SCHEMA = 1
"""The version of the JSON document; raised when a reader of the old one could misunderstand it."""


class OsRelease(NamedTuple):
    """The distribution, as os-release(5) names it.

    Attributes:
        id: lower case, such as ``debian``; ``linux`` where the host does not say.
        id_like: ids of the distributions that it derives from, nearest first.
        version: such as ``12`` or ``22.04``; may be empty (rolling distributions).
        name: for people.
    """

    id: str = "linux"
    id_like: tuple[str, ...] = ()
    version: str = ""
    name: str = "Linux"


class Disk(NamedTuple):
    """A mounted local filesystem. Sizes in bytes."""

    device: str
    mountpoint: str
    filesystem: str
    total_bytes: int
    free_bytes: int


class GraphRoot(NamedTuple):
    """The directory that holds the store, and what its filesystem can do.

    Attributes:
        path: as it was asked for, absolute.
        probed: the directory that was looked at: the path, or its nearest ancestor that exists.
        filesystem: as mountinfo names it: ``ext4``, ``overlay``, ``fuse.sshfs``; empty if unknown.
        source: the mounted device or name.
        options: mount and superblock options.
        problem: why nothing can be kept there, as a reason code (``read-only``, ``not-writable``,
            ``no-space``), or empty.
        d_type: whether readdir(3) tells the types of entries.
        trusted_xattr, user_xattr: whether such attributes can be set on files.
        reflink: whether FICLONE works.
        o_tmpfile: whether open(2) with O_TMPFILE works.
        rename_whiteout: whether renameat2(2) with RENAME_WHITEOUT works.
        total_bytes, free_bytes, total_inodes, free_inodes: by statvfs(3); inodes are 0 where the
            filesystem does not count them (btrfs).

    What could not be measured is None.
    """

    path: str = "/var/lib/storagedrivers"
    probed: str = "/"
    filesystem: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    problem: str = ""
    d_type: bool | None = None
    trusted_xattr: bool | None = None
    user_xattr: bool | None = None
    reflink: bool | None = None
    o_tmpfile: bool | None = None
    rename_whiteout: bool | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    total_inodes: int | None = None
    free_inodes: int | None = None


class HostFacts(NamedTuple):
    """A host, seen from one process and one graph root.

    Attributes:
        system: ``Linux``, ``Darwin``, ``Windows``: as uname(1) or Python has it.
        machine: such as ``x86_64``.
        kernel: the release, such as ``6.1.0-18-amd64``.
        os: the distribution.
        filesystems: what the kernel has, from /proc/filesystems, sorted.
        loadable: filesystems it lacks but has a module for, of those that drivers ask about; None
            where the list of modules is not there.
        graph_root: where the store is, and its filesystem.
        uid: the effective user.
        user_namespace: whether the process is outside the initial user namespace.
        can_mount: whether it has CAP_SYS_ADMIN in its user namespace.
        container: what it runs in (``docker``, ``podman``, ``lxc``, …), or empty.
        memory_bytes: physical memory, or None.
        disks: mounted local filesystems.
        recorded: the facts came from a file, so nothing can be tried; not part of the JSON
            document.
    """

    system: str = "Linux"
    machine: str = ""
    kernel: str = ""
    os: OsRelease = OsRelease()
    filesystems: tuple[str, ...] = ()
    loadable: tuple[str, ...] | None = ()
    graph_root: GraphRoot = GraphRoot()
    uid: int = 0
    user_namespace: bool = False
    can_mount: bool = True
    container: str = ""
    memory_bytes: int | None = None
    disks: tuple[Disk, ...] = ()
    recorded: bool = False

    @property
    def kernel_version(self) -> tuple[int, int]:
        """Major and minor number of the release; ``(0, 0)`` where it has none."""
        return kernel.version(self.kernel)

    def to_json(self) -> str:
        """The document that :meth:`from_json` reads; its schema is ``docs/schemas/facts.json``."""
        document = {"schema": SCHEMA, **_plain(self)}
        del document["recorded"]
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, file: str = "<facts>") -> HostFacts:
        """Read a document that :meth:`to_json` wrote, perhaps on another host.

        Keys that are missing take their defaults, for hosts described by hand.

        Raises:
            ConfigError: no JSON, an unknown key, a value of the wrong type; with file, line and
                key.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"not valid JSON: {error.msg}", file=file, line=error.lineno
            ) from error
        except (ValueError, RecursionError) as error:  # a number or a nesting beyond all limits
            raise ConfigError(f"not a document of host facts: {error}", file=file) from error
        reader = _Reader(text, file)
        if not isinstance(document, dict):
            raise ConfigError("not a JSON object", file=file, line=1)
        schema = document.pop("schema", None)
        if type(schema) is not int or schema != SCHEMA:
            raise reader.error(
                ("schema",),
                f"this program reads host facts of schema {SCHEMA}",
                resolution="record them anew: storagedrivers facts > host.json",
            )
        if "recorded" in document:
            raise reader.error(("recorded",), "unknown key")
        facts = reader.read(document, cls, ())
        if facts.graph_root.problem not in PROBLEMS:
            raise reader.error(("graph_root", "problem"), f"must be one of {', '.join(PROBLEMS)}")
        return facts._replace(recorded=True)


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries, for JSON."""
    if hasattr(value, "_asdict"):
        return {key: _plain(item) for key, item in value._asdict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class _Reader:
    """Builds named tuples from JSON values, and says where a value is wrong."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file

    def read(self, value: Any, wanted: type[T], path: tuple[str, ...]) -> T:
        if not isinstance(value, dict):
            raise self.error(path, f"must be an object, not {_name(value)}")
        hints = typing.get_type_hints(wanted)
        for key in value:
            if key not in hints:
                raise self.error((*path, key), "unknown key")
        for key in hints.keys() - value.keys() - wanted._field_defaults.keys():  # type: ignore[attr-defined]
            raise self.error(path, f"lacks the key {key!r}")
        arguments = {
            key: self._convert(item, hints[key], (*path, key)) for key, item in value.items()
        }
        return wanted(**arguments)

    def _convert(self, value: Any, hint: Any, path: tuple[str, ...]) -> Any:
        choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if value is None and type(None) in choices:
            return None
        if hasattr(choices[0], "_fields"):
            return self.read(value, choices[0], path)
        if typing.get_origin(choices[0]) is tuple:
            if not isinstance(value, list):
                raise self.error(path, f"must be a list, not {_name(value)}")
            kind = typing.get_args(choices[0])[0]
            return tuple(
                self._convert(item, kind, (*path, str(place))) for place, item in enumerate(value)
            )
        if type(value) not in choices:  # not isinstance: a bool is no number here
            names = " or ".join("null" if one is type(None) else one.__name__ for one in choices)
            raise self.error(path, f"must be {names}, not {_name(value)}")
        return value

    def error(
        self, path: tuple[str, ...], brief: str, *, resolution: str | None = None
    ) -> ConfigError:
        return ConfigError(
            brief,
            file=self._file,
            line=_lines_of_keys(self._text).get(path),
            key=".".join(path) or None,
            resolution=resolution,
        )


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """The line of every key and list item of a valid JSON document, by its path."""
    lines: dict[tuple[str, ...], int] = {}
    path: list[str] = []  # of the value that comes next; an item's place in a list is a key too
    lists: list[bool] = []
    wants_key = False
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', text):
        word = token[0]
        if word in "{[":
            lists.append(word == "[")
            path.append("0")
            wants_key = word == "{"
        elif word in "}]":
            lists.pop()
            path.pop()
        elif word == ",":
            wants_key = not lists[-1]
            if lists[-1]:
                path[-1] = str(int(path[-1]) + 1)
        elif wants_key:
            path[-1] = json.loads(word)
            wants_key = False
        else:
            continue
        if word not in "}]":
            lines.setdefault(tuple(path), text.count("\n", 0, token.start()) + 1)
    return lines
