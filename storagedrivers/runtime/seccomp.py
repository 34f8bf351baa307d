"""The system calls that a container may make.

``seccomp.json`` beside this module lists them by name: those that everyone may call, those that
need a capability to be of any use, and those of one machine only. A call that is not listed fails
with EPERM; an OCI runtime passes over names that its libseccomp does not know.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Sequence
from importlib import resources
from typing import Any

from storagedrivers.linux import kernel

# The execution domains of personality(2) that change nothing for others: PER_LINUX, PER_LINUX32,
# UNAME26, both together, and the question for the current one.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of clone(2).
_NEW_NAMESPACES = 0x7E020000

_AF_VSOCK = 40  # reaches the hypervisor, whatever network namespace one is in

_PTRACE_IS_SAFE = (4, 8)  # before Linux 4.8 a tracer could change a call after it was filtered


def make_filter(capabilities: Collection[str], *, machine: str | None = None) -> dict[str, Any]:
    """The filter of a container with *capabilities*, as ``linux.seccomp`` of config.json has it.

    Args:
        capabilities: those in its bounding set.
        machine: as uname(2) names it; this one by default.
    """
    calls = json.loads(resources.files(__package__).joinpath("seccomp.json").read_bytes())
    own = calls["machines"].get(machine or os.uname().machine, {})
    allowed = {*calls["allow"], *own.get("allow", ())}
    for capability, names in calls["capabilities"].items():
        if capability in capabilities:
            allowed.update(names)
    if kernel.version() >= _PTRACE_IS_SAFE:
        allowed.add("ptrace")
    rules = [_allow(sorted(allowed)), _allow(["socket"], 0, _AF_VSOCK, "SCMP_CMP_NE")]
    rules += [_allow(["personality"], 0, domain, "SCMP_CMP_EQ") for domain in _PERSONALITIES]
    if "clone" not in allowed:
        flags = own.get("clone_flags_argument", 0)
        rules.append(_allow(["clone"], flags, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"))
        # Its flags lie in memory, where no filter can look: C libraries fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    document: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    if "architectures" in own:
        document["architectures"] = own["architectures"]
    return document


def _allow(names: Sequence[str], index: int = 0, value: int = 0, op: str = "") -> dict[str, Any]:
    rule: dict[str, Any] = {"names": [*names], "action": "SCMP_ACT_ALLOW"}
    if op:
        # MASKED_EQ: the argument and *value* have no bit in common.
        rule["args"] = [{"index": index, "value": value, "op": op}]
    return rule
