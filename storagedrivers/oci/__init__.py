"""Formats of images: names, configs, manifests, docker archives, OCI layouts. No store, no driver.

::

    archive or layout ─▶ files (name → bytes) ─▶ docker, layout, oldest ─▶ Found        in
    config, manifest, layers ─▶ write ─▶ a tar, or a layout as a directory              out

All of it comes from outside: sizes are bounded before anything is read, digests are checked, and no
name of an archive ever becomes a path.
"""
