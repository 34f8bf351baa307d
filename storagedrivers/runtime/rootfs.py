"""A container's root filesystem, as who starts it looks into it."""

from __future__ import annotations

import os
import stat

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.linux.rooted import Root


class Rootfs(Root):
    """A root filesystem that is open; a context manager that closes it."""

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The content of a regular file; None where there is none.

        Raises:
            RuntimeFailedError: it is longer than *limit* bytes.
        """
        try:
            fd = self.open(path)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            # A descriptor of the name alone is opened for reading only once it is known what it is.
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                content = file.read(limit + 1)
        finally:
            os.close(fd)
        if len(content) > limit:
            raise RuntimeFailedError(
                f"the image's {path} is longer than {limit} bytes",
                resolution="name users by number: --user UID:GID",
            )
        return content
