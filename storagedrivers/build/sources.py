"""Finds what a COPY or an ADD names: in the context, or in the root of a stage or an image."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.build import patterns
from storagedrivers.errors import BuildError, did_you_mean
from storagedrivers.linux import tree
from storagedrivers.linux.rooted import Root

if TYPE_CHECKING:
    from storagedrivers.build.ignore import Ignore


class Found(NamedTuple):
    """One thing that is to be copied.

    Attributes:
        path: where it is from the root on, without symlinks in it; empty for the root itself.
        name: what it is called where it is copied into a directory.
        is_directory: its content is copied.
    """

    path: str
    name: str
    is_directory: bool


class Origin:
    """A tree that is copied from.

    Symlinks in it are followed as if its root were that of all: none leads out of it.

    Args:
        root: its root, open.
        ignore: what is left out of it; None where it is no context.
        word: of the instruction, for messages.
    """

    def __init__(self, root: int, ignore: Ignore | None, word: str) -> None:
        self.root = root
        self.ignore = ignore or None  # one without lines leaves nothing out
        self._is_context = ignore is not None
        self._word = word

    def find(self, text: str) -> list[Found]:
        """What a source means; of a pattern it may be nothing.

        Raises:
            BuildError: it is not there, or outside.
        """
        path = posixpath.normpath(text.lstrip("/"))
        if path == ".." or path.startswith("../"):
            raise BuildError(
                f"{self._word} failed: forbidden path outside the build context: {text}",
                resolution="put what is to be copied into the context; nothing else can be read",
            )
        if not patterns.has_special(path):
            return [self._one("" if path == "." else path)]
        return [self._one(one) for one in self._matches(path)]

    def _one(self, path: str) -> Found:
        with Root(f"/proc/self/fd/{self.root}") as root:
            try:
                status, real, links = root.follow(path)
            except OSError as error:
                raise BuildError(f"{self._word} failed: {path}: {error.strerror}") from error
        real = real.strip("/")
        hidden = any(self._is_hidden(one.strip("/")) for one in (*links, real))
        is_directory = status is not None and stat.S_ISDIR(status.st_mode)
        if status is None or (hidden and not (is_directory and self._is_entered(real))):
            raise self._missing(path, real, links, hidden=hidden)
        return Found(real, posixpath.basename(path), is_directory)

    def _is_hidden(self, path: str) -> bool:
        return self.ignore is not None and path != "" and self.ignore.hides(path)

    def _is_entered(self, path: str) -> bool:
        return self.ignore is not None and self.ignore.enters(path)

    # Patterns

    def _matches(self, pattern: str) -> Iterator[str]:
        """The paths that a pattern matches, in the order of a walk; no symlink is followed."""
        parts = [patterns.compiled(part) for part in pattern.split("/")]
        todo = [(0, "")]
        while todo:
            depth, path = todo.pop()
            if depth == len(parts):
                yield path
                continue
            names = [name for name in self._names(path) if parts[depth].fullmatch(name)]
            below = [posixpath.join(path, name) for name in sorted(names, reverse=True)]
            todo += [
                (depth + 1, child)
                for child in below
                if not self._is_hidden(child) or self._is_entered(child)
            ]

    def _names(self, directory: str) -> list[str]:
        """What is in a directory; nothing where it is none."""
        try:
            with tree.opened_below(self.root, directory, mounts=True) as fd:
                return os.listdir(fd)
        except OSError:
            return []

    # Errors

    def _missing(self, path: str, real: str, links: tuple[str, ...], *, hidden: bool) -> BuildError:
        """The error for what is not there."""
        if not self._is_context:
            text = f"{self._word} failed: stat {path}: file does not exist"
        else:
            text = (
                f"{self._word} failed: file not found in build context or excluded by"
                f" .dockerignore: stat {path}: file does not exist"
            )
        if hidden:
            return BuildError(text, resolution=f"a .dockerignore leaves it out; add !{path} to it")
        if links:
            link = links[-1].strip("/")
            return BuildError(
                text,
                resolution=f"{link} is a symlink to {self._target(link)}, and none leads out of"
                " what is copied from: name what is inside",
            )
        directory, _, name = real.rpartition("/")
        close = did_you_mean(name, self._names(directory))
        begin = "the build context" if self._is_context else "what it is copied from"
        return BuildError(text, resolution=close or f"paths begin at the top of {begin}")

    def _target(self, link: str) -> str:
        directory, _, name = link.rpartition("/")
        try:
            with tree.opened_below(self.root, directory, mounts=True) as fd:
                return os.readlink(name, dir_fd=fd)
        except OSError:
            return "another place"
