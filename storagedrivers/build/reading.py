"""What a COPY or ADD reads: each file once, to know whether the cache has its layer already.

The digest has names, kinds, modes, contents and link targets in it, and owners where they are kept:
not times, and not who owns the files of a context, which become root's.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.build import copying
from storagedrivers.build.copying import Item, Owner, Tree, Work
from storagedrivers.build.sources import Found, Origin
from storagedrivers.errors import BuildError
from storagedrivers.linux import tree
from storagedrivers.runtime.rootfs import Rootfs

if TYPE_CHECKING:
    from storagedrivers.build.context import Context
    from storagedrivers.dockerfile.instructions import Heredoc, Instruction

_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}

Fields = tuple[str | int, ...]


class Prepared(NamedTuple):
    """What is to be copied.

    Attributes:
        digest: of all of it, hexadecimal.
        facts: by path: kind, mode, uid, gid, size or target, digest.
        source: what the history says of it: ``file:``, ``dir:`` or ``multi:`` and a digest.
        work: what does it.
    """

    digest: str
    facts: dict[str, Fields]
    source: str
    work: Work

    def apply(self, root: int) -> None:
        """Copy it into the tree with this root.

        Raises:
            BuildError: it cannot be there; the context changed since it was read.
        """
        self.work.apply(root)


@contextmanager
def prepared(
    instruction: Instruction,
    *,
    context: Context,
    stage_root: int | None,
    base_root: int | None,
    workdir: str,
) -> Iterator[Prepared]:
    """Read what a COPY or an ADD copies; it can be applied until the end of the block.

    Args:
        instruction: expanded.
        context: the files of the build.
        stage_root: the root of what ``--from`` names, open.
        base_root: the root of the tree that it is copied into, open, for the names of ``--chown``;
            None for an empty one.
        workdir: where a destination begins that is not absolute.

    Raises:
        BuildError: something is not there, or cannot be copied.
    """
    flags = dict(instruction.flags)
    keeps = flags.get("from") is not None or stage_root is not None
    owner = _owner(flags["chown"], base_root) if flags.get("chown") else None
    if stage_root is not None:
        origin = Origin(stage_root, None, is_context=False)
    elif flags.get("from") is not None:
        raise BuildError("COPY failed: what it is copied from has no files")
    else:
        origin = Origin.of_context(context)
    work = Work(
        owner=owner if owner is not None or keeps else (0, 0),
        mode=_mode(flags["chmod"]) if flags.get("chmod") else None,
        target=_target(instruction, workdir),
        several=len(instruction.arguments) > 2,
    )
    with ExitStack() as stack:
        reading = _Reading(origin, work, stack, unpacks=instruction.word == "ADD", keeps=keeps)
        heredocs = {f"<<{one.name}": one for one in instruction.heredocs}
        for text in instruction.arguments[:-1]:
            reading.read(
                text, heredocs.get(text.replace("-", "", 1) if text.startswith("<<-") else text)
            )
        yield reading.result()


def _target(instruction: Instruction, workdir: str) -> str:
    """The destination, absolute; with a slash at its end where it has to be a directory."""
    text = instruction.arguments[-1]
    path = posixpath.normpath(posixpath.join("/", workdir, text))
    path = f"/{path.lstrip('/')}"
    is_directory = text.endswith(("/", "/.")) or text in (".", "")
    if len(instruction.arguments) > 2 and not is_directory:
        raise BuildError(
            f"when using {instruction.word} with more than one source file, the destination must be"
            " a directory and end with a /",
            resolution=f"write {text}/",
        )
    return path if path == "/" or not is_directory else f"{path}/"


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise BuildError(
            f"invalid chmod parameter: {text!r}", resolution="give an octal mode: --chmod=755"
        )
    return mode


def _owner(text: str, root: int | None) -> Owner:
    """The user and the group that ``--chown`` names: without a group, that of the user's name."""
    user, _, group = text.partition(":")
    group = group or user
    with ExitStack() as stack:
        rootfs = None
        if root is not None and not (user.isdecimal() and group.isdecimal()):
            rootfs = stack.enter_context(Rootfs(f"/proc/self/fd/{root}"))
        uid = _id(rootfs, "/etc/passwd", user or "0", text)
        return uid, _id(rootfs, "/etc/group", group or "0", text)


def _id(rootfs: Rootfs | None, path: str, name: str, text: str) -> int:
    if name.isdecimal():
        number = int(name)
        if number >= 2**32 - 1:
            raise BuildError(f"invalid --chown={text}: {name} is too big for an id")
        return number
    from storagedrivers.runtime.users import entries

    for fields in () if rootfs is None else entries(rootfs, path, 3):
        if fields[0] == name:
            return int(fields[2])
    what = "user" if path == "/etc/passwd" else "group"
    raise BuildError(
        f"unable to convert uid/gid chown string to host mapping: can't find {what} {name!r}",
        resolution=f"make the {what} in a step before, or give a number",
    )


class _Reading:
    """Reads the sources of one instruction."""

    def __init__(
        self, origin: Origin, work: Work, stack: ExitStack, *, unpacks: bool, keeps: bool
    ) -> None:
        self._origin = origin
        self._work = work
        self._stack = stack
        self._unpacks = unpacks
        self._keeps = keeps
        self._facts: dict[str, Fields] = {}
        self._kinds: list[str] = []

    def read(self, text: str, heredoc: Heredoc | None) -> None:
        """One source."""
        if heredoc is not None:
            self._add_text(heredoc)
        elif self._unpacks and text.startswith(("http://", "https://")):
            self._add_url(text)
        elif self._unpacks and (text.startswith("git@") or text.endswith(".git")):
            raise BuildError(
                f"ADD of a git repository is not done: {text}",
                resolution="clone it into the context first",
            )
        else:
            for found in self._origin.find(text):
                self._add(found)

    def result(self) -> Prepared:
        """What was read."""
        hashed = hashlib.sha256()
        for path, fields in self._facts.items():
            for one in (path, *fields):
                data = str(one).encode(errors="surrogateescape")
                hashed.update(b"%d:%b" % (len(data), data))
        digest = hashed.hexdigest()
        kind = self._kinds[0] if len(self._kinds) == 1 else "multi"
        return Prepared(digest, self._facts, f"{kind}:{digest}", self._work)

    def _add_text(self, heredoc: Heredoc) -> None:
        data = heredoc.content.encode()
        self._facts[heredoc.name] = _text_fields(data, 0o644)
        self._kinds.append("file")
        self._work.add_data(heredoc.name, data, 0o644, None)

    def _add_url(self, url: str) -> None:
        from storagedrivers.build import remote

        fetched = self._stack.enter_context(remote.fetched(url))
        self._facts[fetched.name] = ("file", 0o600, 0, 0, fetched.size, fetched.digest)
        self._kinds.append("file")
        if not fetched.name and not self._work.is_directory:
            raise BuildError(f"cannot determine filename from url: {url}")
        self._work.add_open_file(fetched.name, fetched.fd, 0o600, fetched.modified)

    def _add(self, found: Found) -> None:
        if found.is_directory:
            fd = self._origin.open(found.path, os.O_RDONLY | os.O_DIRECTORY)
            self._stack.callback(os.close, fd)
            items = [*self._walk(fd, found.path)]
            self._kinds.append("dir")
            self._work.add_tree(Tree(fd, found.path, tuple(items)))
            return
        above, name = posixpath.split(found.path)
        fd = self._origin.open(above, os.O_RDONLY | os.O_DIRECTORY)
        self._stack.callback(os.close, fd)
        item = self._item(fd, name, name, found.path)
        self._kinds.append("file")
        if self._unpacks and item.is_file and copying.is_tar(fd, name):
            self._work.add_archive(Tree(fd, found.path, (item,)))
        else:
            self._work.add_file(Tree(fd, found.path, (item,)), found.name)

    def _walk(self, top: int, above: str) -> Iterator[Item]:
        """What is in a directory, parents first, in the order of the names."""
        todo = [""]
        while todo:
            path = todo.pop()
            with tree.opened_below(top, path, mounts=True) as fd:
                names = sorted(os.listdir(fd))
                children = []
                for name in names:
                    child = f"{path}/{name}" if path else name
                    whole = f"{above}/{child}" if above else child
                    hidden = self._origin.is_hidden(whole)
                    item = self._entered(fd, name, child, whole, hidden=hidden)
                    if item is None:
                        continue
                    if item.is_directory:
                        children.append(child)
                    if not hidden or item.is_directory:
                        yield item
                todo += reversed(children)

    def _entered(self, fd: int, name: str, child: str, whole: str, *, hidden: bool) -> Item | None:
        """One name of a directory; None for what is left out, with all that is in it."""
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            return None
        if hidden:
            ignore = self._origin.ignore
            assert ignore is not None
            if not (stat.S_ISDIR(status.st_mode) and ignore.enters(whole)):
                return None
        return self._item(fd, name, child, whole)

    def _item(self, fd: int, name: str, path: str, whole: str) -> Item:
        """One entry, with its digest; a file is opened once and looked at before and after."""
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        kind, extra, digest = stat.S_IFMT(status.st_mode), "", ""
        if stat.S_ISREG(status.st_mode):
            digest = _digest(fd, name, status, whole)
        elif stat.S_ISLNK(status.st_mode):
            extra = os.readlink(name, dir_fd=fd)
        elif kind not in _KINDS:
            raise BuildError(f"{whole} is a socket, which no layer can hold")
        mode = stat.S_IMODE(status.st_mode)
        uid, gid = (status.st_uid, status.st_gid) if self._keeps else (0, 0)
        size = extra or (status.st_size if digest else 0)
        self._facts[whole] = (_KINDS[kind], mode, uid, gid, size, digest)
        return Item(path, status, extra)


def _text_fields(data: bytes, mode: int) -> Fields:
    return ("file", mode, 0, 0, len(data), hashlib.sha256(data).hexdigest())


def _digest(directory: int, name: str, status: os.stat_result, path: str) -> str:
    fd = tree.open_regular(directory, name)
    if fd is None:
        raise copying.changed(path)
    with open(fd, "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if copying.stamp(os.fstat(fd)) != copying.stamp(status):
            raise copying.changed(path)
    return digest
