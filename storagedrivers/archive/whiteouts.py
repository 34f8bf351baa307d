"""The names and attributes by which a layer says that something below it is gone.

An OCI layer and an aufs branch use the same names (the OCI image spec, "Whiteouts"; aufs(5)).
"""

from __future__ import annotations

import os

from storagedrivers.linux import copy
from storagedrivers.model import WhiteoutFormat

PREFIX = b".wh."
"""``.wh.NAME`` hides NAME."""

META = b".wh..wh."
"""What begins so is no whiteout, but aufs's own."""

OPAQUE = b".wh..wh..opq"
"""In a directory that shows nothing of the one below."""

OVERLAY_OPAQUE = {
    WhiteoutFormat.OVERLAY: "trusted.overlay.opaque",
    WhiteoutFormat.OVERLAY_USER: "user.overlay.opaque",
}
"""The attribute of such a directory, ``y``, in a changeset of overlay."""

OVERLAYS_OWN = tuple(map(os.fsencode, copy.OVERLAYS_OWN))
"""What the attributes begin with that tell of a place in a stack."""
