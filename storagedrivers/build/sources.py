"""Finds what a COPY or ADD names: in the context, or in the root of a stage or an image."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.build import patterns
from storagedrivers.errors import BuildError, did_you_mean
from storagedrivers.linux import rooted, syscalls

if TYPE_CHECKING:
    from storagedrivers.build.context import Context
    from storagedrivers.build.ignore import Ignore


class Found(NamedTuple):
    """One thing that is to be copied.

    Attributes:
        path: from the root that it is in, without symlinks in it.
        name: what it is called where it is copied into a directory.
        is_directory: its content is copied.
    """

    path: str
    name: str
    is_directory: bool


class Origin:
    """A tree that is copied from.

    Args:
        root: its root, open.
        ignore: what of it is left out.
        is_context: it is the context, which nothing may lead out of; in the root of an image an
            absolute symlink is one inside of it.
    """

    def __init__(self, root: int, ignore: Ignore | None, *, is_context: bool) -> None:
        self.root = root
        self.ignore = ignore
        self.is_context = is_context

    @classmethod
    def of_context(cls, context: Context) -> Origin:
        """The files of the build."""
        return cls(context.root_fd, context.ignore or None, is_context=True)

    def open(self, path: str, flags: int) -> int:
        """Open something in it.

        Raises:
            BuildError: it leads out of it, or is not there.
        """
        try:
            if not self.is_context:
                return rooted.open_in(self.root, path or ".", flags)
            resolve = syscalls.RESOLVE_BENEATH
            return syscalls.openat2(self.root, path or ".", flags, resolve=resolve)
        except OSError as error:
            raise self._refusal(error, path) from error

    def _refusal(self, error: OSError, path: str) -> BuildError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return self.missing(path)
        if error.errno in (errno.EXDEV, errno.ELOOP):
            return BuildError(
                f"{path} leads out of the context through a symlink",
                resolution="put what is to be copied into the context; nothing else can be read",
            )
        return BuildError(f"{path} cannot be read: {error.strerror}")

    def missing(self, path: str) -> BuildError:
        """The error for what is not there; the nearest that is."""
        where = "the build context" if self.is_context else "what it is copied from"
        if self.ignore is not None and self.ignore.hides(path):
            return BuildError(
                f"COPY failed: {path} is left out of {where} by .dockerignore",
                resolution=f"let it in again with a last line !{path}",
            )
        directory, _, name = path.rpartition("/")
        names: list[str] = []
        try:
            fd = self.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                names = os.listdir(fd)
            finally:
                os.close(fd)
        except BuildError:
            pass
        return BuildError(
            f"COPY failed: file not found in {where}: {path}",
            resolution=did_you_mean(name, names) or "paths are relative to the context",
        )

    def is_hidden(self, path: str) -> bool:
        """Whether a path is left out."""
        return self.ignore is not None and self.ignore.hides(path)

    def find(self, text: str) -> list[Found]:
        """What a source of a COPY means.

        Raises:
            BuildError: nothing, or something outside.
        """
        path = posixpath.normpath(f"/{text}").strip("/")
        if patterns.has_special(path):
            found = [self._one(one) for one in sorted(self._matches(path))]
            if not found:
                raise self.missing(path)
            return found
        if self.is_hidden(path) and not (self.ignore and self.ignore.enters(path)):
            raise self.missing(path)
        return [self._one(path)]

    def _one(self, path: str) -> Found:
        fd = self.open(path, os.O_PATH)
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            resolved = os.readlink(f"/proc/self/fd/{fd}") if path else ""
            top = os.readlink(f"/proc/self/fd/{self.root}") if path else ""
        finally:
            os.close(fd)
        inside = posixpath.relpath(resolved, top) if path and resolved.startswith(top) else path
        return Found("" if inside == "." else inside, posixpath.basename(path), is_directory)

    def _matches(self, pattern: str) -> Iterator[str]:
        """The paths that a pattern matches: name by name."""
        found = [""]
        for part in pattern.split("/"):
            matches = patterns.compiled(part)
            found = [
                f"{directory}/{name}".lstrip("/")
                for directory in found
                for name in self._names(directory)
                if matches.fullmatch(name)
            ]
        return (path for path in found if not self.is_hidden(path))

    def _names(self, directory: str) -> list[str]:
        try:
            fd = self.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except BuildError:
            return []
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)
