"""The table of mounts, asked of Docker's own client and daemon: they understand the same."""

from __future__ import annotations

import json
import posixpath
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from interop.daemons import Daemons, environment
from interop.making import Peers
from mount_cases import ACCEPTED, CASES, COMBINATIONS, DIRECTORY, Case, Combination
from running import rootfs_tar

from storagedrivers.mounts.spec import MountSpec, MountType
from storagedrivers.mounts.volume_flag import VolumesFrom

_ANONYMOUS = re.compile("[0-9a-f]{64}")
_OF_CLIENT = re.compile(r'invalid argument ".*" for "[^"]*" flag: (.*)\nSee ', re.DOTALL)
_OF_DAEMON = "Error response from daemon: "


class Docker:
    """Makes containers with options, and says what they are or why they cannot be."""

    def __init__(self, daemons: Daemons) -> None:
        self._daemons = daemons
        self._api = daemons.connection()
        self._image = daemons.docker(
            "import", "--change", "VOLUME /image", "-", data=rootfs_tar()
        ).decode()
        daemons.docker("create", "--name", "other", "-v", "vol:/from", "-v", "/usr:/of",
                       self._image.strip(), "true")  # fmt: skip

    def create(self, *options: str) -> dict[str, Any] | str:
        """What Docker knows of the container, which is no more; or the sentence of the error."""
        command = self._daemons.docker_command("create", *options, self._image.strip(), "true")
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=DIRECTORY,
            env=environment(self._daemons.directory),
        )
        try:
            if done.returncode != 0:
                return _sentence(done.stderr)
            name = done.stdout.strip()
            found = self._ask("GET", f"/containers/{name}/json")
            self._ask("DELETE", f"/containers/{name}?v=1&force=1")
            return dict(found)
        finally:
            self._ask("POST", "/volumes/prune")

    def close(self) -> None:
        self._daemons.docker("rm", "-v", "other")
        self._ask("POST", "/volumes/prune")
        self._api.close()

    def _ask(self, method: str, path: str) -> Any:
        self._api.request(method, path)
        answer = self._api.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text) if text else None


def _sentence(said: str) -> str:
    of_client = _OF_CLIENT.match(said)
    return of_client[1] if of_client else said.strip().removeprefix(_OF_DAEMON)


@pytest.fixture(scope="module")
def docker(peers: Peers) -> Iterator[Docker]:
    """Docker with an image that has ``VOLUME /image``, and the container ``other``."""
    made = Docker(peers.daemons)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.form} {case.text!r}")
def test_docker_says_the_same(docker: Docker, case: Case) -> None:
    """Docker takes what we take and understands it so; else it has the sentence of the table."""
    found = docker.create(case.form, case.text)
    sentence = case.expected if case.debian is None else case.debian
    if isinstance(found, str):
        assert found == sentence
    elif case.debian != ACCEPTED:
        assert not isinstance(sentence, str), "Docker takes it"
        _CHECKS[case.form](found, case)


def _check_volume(found: dict[str, Any], case: Case) -> None:
    assert isinstance(case.expected, MountSpec)
    # What is anonymous here is not seen as asked for, but as if it were the image's.
    mode = case.expected.mode
    named = case.expected.type is MountType.VOLUME and not case.expected.is_anonymous
    assert _mount(found, case.expected) == _meant(case.expected, mode or ("z" if named else ""))


def _check_mount(found: dict[str, Any], case: Case) -> None:
    spec = case.expected
    assert isinstance(spec, MountSpec)
    assert _mount(found, spec) == _meant(spec, "z" if spec.type is MountType.VOLUME else "")
    (asked,) = found["HostConfig"]["Mounts"]
    volume = asked.get("VolumeOptions") or {}
    driver = volume.get("DriverConfig") or {}
    bind = asked.get("BindOptions") or {}
    tmpfs = asked.get("TmpfsOptions") or {}
    assert spec == MountSpec(
        type=spec.type,
        target=spec.target,
        source=spec.source,
        read_only=asked.get("ReadOnly", False),
        propagation=bind.get("Propagation", ""),
        recursive="disabled" if bind.get("NonRecursive") else "",
        no_copy=volume.get("NoCopy", False),
        driver=driver.get("Name", ""),
        labels=_ordered(volume.get("Labels"), spec.labels),
        options=_ordered(driver.get("Options"), spec.options),
        tmpfs_size=tmpfs.get("SizeBytes"),
        tmpfs_mode=tmpfs.get("Mode"),
    )


def _ordered(
    found: dict[str, str] | None, expected: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """Pairs of Docker's, whose order says nothing."""
    pairs = (found or {}).items()
    order = [name for name, _ in expected]
    return tuple(sorted(pairs, key=lambda pair: (pair[0] not in order, order.index(pair[0]))))


def _check_tmpfs(found: dict[str, Any], case: Case) -> None:
    assert isinstance(case.expected, MountSpec)
    ((path, _),) = found["HostConfig"]["Tmpfs"].items()
    assert posixpath.normpath(path) == case.expected.target


def _check_volumes_from(found: dict[str, Any], case: Case) -> None:
    assert isinstance(case.expected, VolumesFrom)
    for source, target in (("vol", "/from"), ("/usr", "/of")):
        kind = MountType.BIND if source.startswith("/") else MountType.VOLUME
        spec = case.expected.of(MountSpec(kind, target, source))
        assert _mount(found, spec) == _meant(spec, "")


_CHECKS = {
    "-v": _check_volume,
    "--mount": _check_mount,
    "--tmpfs": _check_tmpfs,
    "--volumes-from": _check_volumes_from,
}


def _mount(found: dict[str, Any], spec: MountSpec) -> dict[str, Any]:
    """Docker's mount on the same target, without what only Docker decides."""
    (mount,) = (one for one in found["Mounts"] if one["Destination"] == spec.target)
    mount = dict(mount)
    if mount["Type"] == "volume":
        del mount["Source"]
        name = mount["Name"]
        mount["Name"] = "" if _ANONYMOUS.fullmatch(name) else name
    return mount


def _meant(spec: MountSpec, mode: str) -> dict[str, Any]:
    """What Docker is to show."""
    volume = {"Name": spec.source, "Driver": "local"}
    return {
        "Type": spec.type,
        **(volume if spec.type is MountType.VOLUME else {"Source": spec.source}),
        "Destination": spec.target,
        "Mode": mode,
        "RW": not spec.read_only,
        "Propagation": spec.propagation or ("rprivate" if spec.type is MountType.BIND else ""),
    }


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda one: str(one.options))
def test_docker_combines_the_same(docker: Docker, combination: Combination) -> None:
    """Docker has the same mounts in the end, or the same objection."""
    found = docker.create(*(word for option in combination.options for word in option))
    expected = combination.expected if combination.debian is None else combination.debian
    if isinstance(found, str):
        assert found == expected
    elif combination.debian != ACCEPTED:
        assert not isinstance(expected, str), "Docker takes it"
        assert sorted(map(_shown, found["Mounts"])) == sorted(expected)


def _shown(mount: dict[str, Any]) -> tuple[str, str]:
    name = mount.get("Name", "")
    source = {"bind": mount["Source"], "tmpfs": "tmpfs", "volume": name}[mount["Type"]]
    return ("" if _ANONYMOUS.fullmatch(source) else source, mount["Destination"])
