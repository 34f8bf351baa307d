"""What is to be mounted in a container, as values: Docker's grammar of ``-v``, ``--mount``,
``--tmpfs`` and ``--volumes-from``. Pure: no store, no file is looked at.

::

    -v       ─▶ volume_flag.parse_volume  ─┐
    --mount  ─▶ mount_flag.parse_mount    ─┤  MountSpec ─▶ merge.merge ─▶ one list, by depth
    VOLUME   ─▶ merge.image_volumes       ─┘

What is wrong is said in the words of the newest Docker; ``resolution`` says what to write instead.
"""
