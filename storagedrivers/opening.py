"""How a store comes to be and is found: settings, the choice of a driver, directories, the
database.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from storagedrivers.errors import GraphRootError, NotFoundError
from storagedrivers.stores.database import Database

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.selector import Selection

_DIRECTORIES = ("containers", "images", "locks", "tars", "tmp")


def remove_store(top: str) -> None:
    """Remove a directory with a graph root and its run root in it, and what is mounted there.

    Raises:
        UnmountError: something uses a mount.
    """
    from storagedrivers.linux import mount, tree
    from storagedrivers.linux.mountinfo import is_below, read_mountinfo

    inside = os.path.realpath(top)
    points = [entry.mountpoint for entry in read_mountinfo() if is_below(entry.mountpoint, inside)]
    for point in reversed(points):  # the last comes first: it may lie on another
        mount.unmount(point)
    with tree.opened_directory(os.path.dirname(inside)) as fd:
        tree.remove_tree(fd, os.path.basename(inside))


def settings(
    config: StorageConfig | None, **arguments: str | os.PathLike[str] | None
) -> StorageConfig:
    """*config*, or the settings of the environment and the usual files, with what was given
    instead.
    """
    given = {key: os.fspath(value) for key, value in arguments.items() if value is not None}
    if config is not None and not given:
        return config
    from storagedrivers.config import Setting, StorageConfig

    if config is None:
        return StorageConfig.load(arguments=given)
    return config._replace(
        **{
            key: Setting(
                os.path.abspath(value) if key in ("root", "run_root") else value, "argument"
            )
            for key, value in given.items()
        }
    )


def opened(config: StorageConfig, *, read_only: bool) -> tuple[Database, tuple[str, ...]]:
    """The database, with a driver in it, and what there is to say about the choice."""
    root = config.root.value
    assert root is not None
    try:
        database = Database(root, read_only=read_only)
        if database.meta("driver") is not None:
            return database, ()
        database.close()  # of a process that was killed when it made the store
    except NotFoundError:
        pass
    if read_only:
        raise NotFoundError(
            f"{root} holds no store",
            resolution="name another graph root with --root DIR; "
            "storagedrivers image load, layer add and layer create make a store",
        )
    return _made(config, root)


def _made(config: StorageConfig, root: str) -> tuple[Database, tuple[str, ...]]:
    from storagedrivers.stores import locks

    selection = select_driver(config, root)
    driver = selection.require()
    _make_directories(root)
    with locks.locked(os.path.join(root, "locks", "store"), f"the store at {root}"):
        database = Database(root, create=True)
        # Whoever was first has chosen.
        database.set_meta(
            **{"driver": driver, "uuid": os.urandom(16).hex(), _accepted(driver): "yes"}
        )
    return database, selection.warnings


def _make_directories(root: str) -> None:
    try:
        os.makedirs(os.path.dirname(root), exist_ok=True)
        if not os.path.isdir(root):
            os.mkdir(root, 0o710)
        elif not os.listdir(root):
            # No user shall reach setuid programs of other hosts and times. What holds files of
            # others keeps its mode, /tmp above all: the homes in it are closed anyway.
            os.chmod(root, 0o710)
        for name in _DIRECTORIES:
            os.makedirs(os.path.join(root, name), mode=0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise GraphRootError(f"the graph root {root} is not a directory") from error


def requested_driver(config: StorageConfig, database: Database) -> str | None:
    """The driver that was asked for, which has to work here; it is asked once for each store."""
    if config.driver.value is None:
        return None
    from storagedrivers.registry import driver_class

    name = driver_class(config.driver.value).name
    if database.meta(_accepted(name)) is None:
        select_driver(config, database.root).require()
        database.set_meta(**{_accepted(name): "yes"})
    return name


def _accepted(driver: str) -> str:
    """The key in the database that says that a driver was probed for this store."""
    return f"accepted:{driver}"


def select_driver(config: StorageConfig, root: str) -> Selection:
    """Probe the installed drivers and choose by the settings."""
    from storagedrivers.host import read_host
    from storagedrivers.policy import find_policy, load_policies
    from storagedrivers.registry import Registry
    from storagedrivers.selector import Fallback, prior_drivers, probe_all, select

    registry = Registry.discover()
    host = read_host(root, inventory=False)
    return select(
        probe_all(registry, host),
        policy=find_policy(load_policies(config.policy_file.value), config.policy.value or ""),
        host=host,
        requested=registry.get(config.driver.value).name if config.driver.value else None,
        prior=prior_drivers(root, {entry.name for entry in registry}),
        fallback=Fallback(config.fallback.value or Fallback.WARN),
    )
