"""Tar ⇄ tree: a layer's tar becomes a directory of a driver, and the same tar again.

::

    bytes ─▶ source (decompress, hash) ─▶ reader (entries) ─▶ unpack ─▶ changeset or tree   in
                                                         └─▶ kept (headers)
    kept + tree ─▶ reassemble ─▶ the same bytes                                             out
    changeset or tree ─▶ changes ─▶ pack ─▶ a canonical diff                                out

Nothing here knows drivers or stores: directories come as open descriptors. The reading side meets
hostile input as root: every path of an archive is walked by this package, name by name, in the
directory that it was given.
"""

PAYLOAD_SUFFIX = ".payload"
"""What the name of a second kept file ends in, see :mod:`storagedrivers.archive.kept`."""
