"""The capabilities that a container has by default: Docker's fourteen."""

from __future__ import annotations

NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_MKNOD": 27,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}


def default(*, root: bool) -> dict[str, list[str]]:
    """The sets of a process, as ``process.capabilities`` of config.json has them.

    Args:
        root: it runs as root; another user may get capabilities only through a setuid program or
            one with file capabilities, which the bounding set limits.
    """
    own = _bounding_set()
    names = [name for name, number in NUMBERS.items() if own >> number & 1]
    sets = {"bounding": names}
    if root:
        sets |= {"effective": [*names], "permitted": [*names]}
    return sets


def take_away(sets: dict[str, list[str]], name: str) -> None:
    """Remove a capability from every set."""
    for names in sets.values():
        if name in names:
            names.remove(name)


def last() -> int:
    """The number of the last capability that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def _bounding_set() -> int:
    """What this process can hand on; a runtime fails when it is asked for more."""
    with open("/proc/thread-self/status") as file:
        line = next(line for line in file if line.startswith("CapBnd:"))
    return int(line.split()[1], 16)
