from __future__ import annotations

import errno
from typing import Any

import pytest

from storagedrivers.runtime import capabilities
from storagedrivers.runtime.seccomp import make_filter

DEFAULT = tuple(capabilities.NUMBERS)
DANGEROUS = (
    *("mount", "umount2", "pivot_root", "setns", "unshare", "bpf", "perf_event_open", "reboot"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "swapon"),
    *("keyctl", "add_key", "request_key", "userfaultfd", "open_by_handle_at", "syslog", "acct"),
    *("iopl", "ioperm", "settimeofday", "clock_settime", "move_pages", "nfsservctl", "quotactl"),
    *("process_vm_readv", "process_vm_writev", "kcmp", "ustat", "sysfs", "uselib", "vm86"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "fsopen", "move_mount"),
)
USUAL = (
    *("read", "write", "openat", "execve", "fork", "vfork", "mmap", "futex", "futex_waitv"),
    *("epoll_wait", "clock_gettime", "statx", "openat2", "faccessat2", "fchmodat2", "close_range"),
    *("rseq", "getrandom", "landlock_create_ruleset", "chroot", "setuid", "mknod", "kill"),
)


def _rules(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in document["syscalls"] if name in rule["names"]]


def _always(document: dict[str, Any], name: str) -> bool:
    rules = _rules(document, name)
    return any(rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule for rule in rules)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "s390x", "riscv64", "unknown"])
def test_default(machine: str) -> None:
    """What is not allowed fails; the usual capabilities do not let one change the host."""
    document = make_filter(DEFAULT, machine=machine)
    assert document["defaultAction"] == "SCMP_ACT_ERRNO"
    assert [name for name in DANGEROUS if _rules(document, name)] == []
    assert [name for name in USUAL if not _always(document, name)] == []


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_PTRACE", "process_vm_readv"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_capabilities(capability: str, name: str) -> None:
    """A call that needs a capability is allowed to who has it, and only to them."""
    assert not _always(make_filter(DEFAULT), name)
    assert _always(make_filter((*DEFAULT, capability)), name)


def test_chroot_needs_its_capability() -> None:
    """A container without CAP_SYS_CHROOT does not get chroot(2)."""
    assert _rules(make_filter(()), "chroot") == []


@pytest.mark.parametrize(("machine", "index"), [("x86_64", 0), ("aarch64", 0), ("s390x", 1)])
def test_no_new_namespaces(machine: str, index: int) -> None:
    """clone(2) without any flag for a namespace; clone3 looks as if the kernel had none."""
    document = make_filter(DEFAULT, machine=machine)
    (rule,) = _rules(document, "clone")
    assert rule["args"] == [{"index": index, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}]
    (rule,) = _rules(document, "clone3")
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", errno.ENOSYS)


def test_arguments() -> None:
    """Sockets but for those to the hypervisor; execution domains that harm nobody."""
    document = make_filter(DEFAULT)
    (rule,) = _rules(document, "socket")
    assert rule["args"] == [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]
    values = {rule["args"][0]["value"] for rule in _rules(document, "personality")}
    assert values == {0, 8, 0x20000, 0x20008, 0xFFFFFFFF}


def test_32_bit_programs() -> None:
    """A 64-bit machine that runs programs of 32 bits filters their calls too."""
    assert "SCMP_ARCH_X86" in make_filter(DEFAULT, machine="x86_64")["architectures"]
    assert "SCMP_ARCH_ARM" in make_filter(DEFAULT, machine="aarch64")["architectures"]
