"""What a COPY or an ADD copies: each file is read once, to know whether the cache has its layer.

The digest has names, kinds, modes, owners, contents and targets in it, as the copies are to have
them: not times, and not who owns the files of a context, which become root's.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.build.copying import Copies
from storagedrivers.build.items import (
    ARCHIVE,
    DIRECTORY,
    FILE,
    Fields,
    Part,
    Rules,
    changed,
    made_part,
)
from storagedrivers.build.sources import Found, Origin
from storagedrivers.build.walking import Walk
from storagedrivers.errors import BuildError
from storagedrivers.linux import tree

if TYPE_CHECKING:
    from storagedrivers.build.context import Context
    from storagedrivers.dockerfile.instructions import Heredoc, Instruction

_URLS = ("http://", "https://")
_GIT = ("git@", "git://", "ssh://")


class Prepared(NamedTuple):
    """What is to be copied.

    Attributes:
        digest: of all of it, hexadecimal.
        facts: by path: kind, mode, uid, gid, size or target, digest.
        source: what the history says of it: ``file:``, ``dir:``, ``multi:`` or nothing, for what
            was fetched, and a digest.
        copies: what does it.
    """

    digest: str
    facts: dict[str, Fields]
    source: str
    copies: Copies

    def apply(self, root: int) -> None:
        """Copy it into the tree with this root, which nobody else writes to.

        Raises:
            BuildError: it cannot be there; something changed since it was read.
            DiffError: an archive is no good.
        """
        self.copies.apply(root)


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
    if flags.get("from") is not None and stage_root is None:
        raise BuildError(
            f"COPY failed: stat {instruction.arguments[0]}: file does not exist",
            resolution=f"{flags['from']} has no files",
        )
    rules = Rules(_owner(flags.get("chown"), base_root, stage_root), _mode(flags.get("chmod")))
    if stage_root is None:
        origin = Origin(context.root_fd, context.ignore, instruction.word)
    else:
        origin = Origin(stage_root, None, instruction.word)
    with ExitStack() as stack:
        reading = _Reading(origin, rules, context, stack, unpacks=instruction.word == "ADD")
        try:
            reading.read_all(instruction)
        finally:
            reading.finish()
        yield reading.result(instruction, workdir)


def _owner(
    chown: str | None, base_root: int | None, stage_root: int | None
) -> tuple[int, int] | None:
    """Who owns the copies; None where they keep their owners."""
    if not chown:
        return None if stage_root is not None else (0, 0)
    from storagedrivers.build.owners import find_owner

    return find_owner(chown, base_root)


def _mode(chmod: str | None) -> int | None:
    if not chmod:
        return None
    if len(chmod) <= 5 and all(digit in "01234567" for digit in chmod):
        mode = int(chmod, 8)
        if mode <= 0o7777:
            return mode
    raise BuildError(
        f"invalid chmod parameter: {chmod!r}", resolution="give an octal mode: --chmod=755"
    )


class _Reading:
    """Reads the sources of one instruction."""

    def __init__(
        self, origin: Origin, rules: Rules, context: Context, stack: ExitStack, *, unpacks: bool
    ) -> None:
        self._origin = origin
        self._rules = rules
        self._context = context
        self._stack = stack
        self._unpacks = unpacks
        self._walk = Walk(origin.root, origin.ignore, rules, context.digests)
        self._parts: list[Part] = []

    def finish(self) -> None:
        """Wait for what is read beside."""
        self._walk.finish()

    def read_all(self, instruction: Instruction) -> None:
        """Read all sources."""
        heredocs = {f"<<{one.name}": one for one in instruction.heredocs}
        for text in instruction.arguments[:-1]:
            if (heredoc := heredocs.get(text.replace("<<-", "<<", 1))) is not None:
                self._parts.append(self._of_heredoc(heredoc))
            elif self._unpacks and text.startswith(_URLS) and not text.endswith(".git"):
                self._parts.append(self._of_url(text))
            elif text.startswith((*_URLS, *_GIT)):
                raise _refused(instruction.word, text)
            else:
                self._parts += [self._of_found(found) for found in self._origin.find(text)]
        if not self._parts:
            raise BuildError(
                f"{instruction.word} failed: no source files were specified: nothing matches"
                f" {' '.join(instruction.arguments[:-1])}",
                resolution="* and ? match no slash; a .dockerignore may leave out what matches",
            )

    def _of_heredoc(self, heredoc: Heredoc) -> Part:
        return made_part(heredoc.name, 0o644, time.time(), self._rules, heredoc.content.encode())

    def _of_url(self, url: str) -> Part:
        from storagedrivers.build import remote

        fd = self._stack.enter_context(self._context.scratch())
        return remote.fetched(url, fd, self._rules)

    def _of_found(self, found: Found) -> Part:
        above = found.path if found.is_directory else posixpath.dirname(found.path)
        try:
            fd = tree.open_below(self._origin.root, above, mounts=True)
        except OSError as error:
            raise changed(found.path) from error
        self._stack.callback(os.close, fd)
        if found.is_directory:
            return Part(DIRECTORY, "", self._walk.directory(fd, found.path))
        read = self._walk.file(fd, found.path)
        if self._unpacks and read.items:
            from storagedrivers.build import archives

            if archives.is_archive(read):
                return Part(ARCHIVE, "", read)
        return Part(FILE, found.name, read)

    def result(self, instruction: Instruction, workdir: str) -> Prepared:
        """What was read, and is to be copied."""
        target = _target(instruction, workdir, several=len(self._parts) > 1)
        hashed = hashlib.sha256()
        facts: dict[str, Fields] = {}
        for part in self._parts:
            data = part.describe(facts)
            hashed.update(b"%d:%b" % (len(data), data))
        digest = hashed.hexdigest()
        copies = Copies(tuple(self._parts), self._rules, target, instruction.word)
        return Prepared(digest, facts, f"{self._kind()}{digest}", copies)

    def _kind(self) -> str:
        """What the history has before the digest."""
        if len(self._parts) > 1:
            return "multi:"
        (part,) = self._parts
        if part.how == DIRECTORY:
            return "dir:"
        return "" if part.is_fetched else "file:"


def _target(instruction: Instruction, workdir: str, *, several: bool) -> str:
    """The destination, absolute; with a slash at its end where it has to be a directory."""
    text = instruction.arguments[-1]
    is_directory = text.endswith("/") or posixpath.normpath(text) == "."
    if several and not is_directory:
        word = instruction.word
        raise BuildError(
            f"When using {word} with more than one source file, the destination must be a directory"
            " and end with a /",
            resolution=f"write {text}/",
        )
    path = posixpath.normpath(posixpath.join("/", workdir, text)).lstrip("/")
    return f"/{path}/" if path and is_directory else f"/{path}"


def _refused(word: str, source: str) -> BuildError:
    if word == "COPY":
        return BuildError(
            "COPY failed: source can't be a URL for COPY", resolution=f"write ADD {source}"
        )
    return BuildError(
        f"ADD failed: {source} is a git repository, and none is cloned",
        resolution="clone it into the build context",
    )
