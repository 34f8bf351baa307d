"""The demonstration tells what really happens, on any host, and leaves nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from capabilities import lack, need

import storagedrivers

NOBODY = 65534

_MODULES = ":".join(
    [os.fspath(Path(storagedrivers.__file__).parents[1])]
    + [one for one in sys.path if one.endswith("site-packages")]
)
"""Where the package and its libraries are."""

_AS_NOBODY = (
    shutil.which("setpriv") or "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
)


def demo(
    directory: Path,
    *options: str,
    prefix: Sequence[str] = (),
    path: str | None = None,
    interpreter: str = sys.executable,
) -> str:
    """What it prints, to both outputs; it has to succeed."""
    environment = {
        "HOME": os.fspath(directory),
        "PATH": path or os.environ["PATH"],
        "PYTHONPATH": _MODULES,
    }
    command = [*prefix, interpreter, "-m", "storagedrivers", "demo", "--dir", directory, *options]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def told(text: str) -> None:
    """The points of the story, whatever the driver."""
    assert text.count("the same for all three, once on the disk") == 3
    assert "   C /etc/motd\n" in text
    assert "   red-box: changed\n   blue-box: hello\n" in text
    assert "the image, in a new container: hello" in text
    assert ": gone\n" in text
    assert "storagedrivers container rm red-box blue-box" in text
    assert "data was empty, and got what the image has in /srv: page\n" in text
    built = re.findall(
        r"^   (built |CACHED) (\w+) .* COPY (?:--chown=\S+ )?(\w+) /srv/$", text, re.M
    )
    assert [(state.strip(), name) for state, _, name in built] == [
        ("built", "library"), ("built", "hello"), ("CACHED", "library"), ("built", "clock"),
    ]  # fmt: skip
    assert built[0][1] == built[2][1]
    assert "first is gone; /srv/page of second: kept\n   volumes: data\n" in text


@pytest.mark.parametrize(
    ("filesystem", "driver"), [("ext4", "overlay2"), ("tmpfs", "overlay2"), ("btrfs", "overlay2")]
)
def test_root_sees_the_driver_of_the_host(
    on_filesystem: Callable[[str], Path], filesystem: str, driver: str
) -> None:
    need("root", "mount", "overlay")
    directory = on_filesystem(filesystem)
    text = demo(directory)
    told(text)
    assert f"→ {driver}: " in text
    assert os.listdir(directory) == []


@pytest.mark.parametrize("driver", ["btrfs-snapshot", "vfs-copy"])
def test_the_driver_can_be_chosen(on_filesystem: Callable[[str], Path], driver: str) -> None:
    """And where a layer is a whole tree, that is said."""
    need("root", "mount")
    directory = on_filesystem("btrfs")
    text = demo(directory, "--driver", driver)
    told(text)
    assert f"→ {driver}: " in text
    assert f"{driver} keeps a whole tree for each layer" in text
    assert os.listdir(directory) == []


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user reaches and may write to."""
    need("root", "setpriv")
    directory = Path(tempfile.mkdtemp(prefix="storagedrivers-test-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def interpreter() -> str:
    """One that any user may run: this one, or else the system's, if it is of the same version."""
    version = sys.version_info[:2]
    check = f"import sys, storagedrivers.cli.demo; assert sys.version_info[:2] == {version}"
    for program in (sys.executable, "/usr/bin/python3"):
        command = [*_AS_NOBODY, "env", f"PYTHONPATH={_MODULES}", program, "-c", check]
        if not subprocess.run(command, capture_output=True, check=False, cwd="/").returncode:
            return program
    return lack("readable", f"user {NOBODY} cannot read this installation")


def test_a_user_gets_it_in_a_user_namespace(public: Path, interpreter: str) -> None:
    need("user-namespace")
    text = demo(public, prefix=_AS_NOBODY, interpreter=interpreter)
    told(text)
    assert text.startswith("You are not root: this runs in a user namespace")
    assert "→ overlay2: " in text
    assert os.listdir(public) == []


def test_without_user_namespaces_the_layers_are_copies(
    public: Path, interpreter: str, tmp_path: Path
) -> None:
    """As on hosts that forbid them: here, the program that makes one is not to be found."""
    directory = tmp_path / "bin"
    directory.mkdir()
    path = f"{directory}:/nonexistent"
    text = demo(public, prefix=_AS_NOBODY, path=path, interpreter=interpreter)
    told(text)
    assert text.startswith("This host lets users make no user namespace")
    assert "→ vfs-copy: " in text
    assert os.listdir(public) == []


def test_it_can_be_kept_for_commands_of_ones_own(on_filesystem: Callable[[str], Path]) -> None:
    """The line at its end is a command that works."""
    need("root", "mount")
    directory = on_filesystem("tmpfs")
    last = demo(directory, "--keep").splitlines()[-1]
    words = last.partition("storagedrivers ")[2].split()[:-1]
    done = subprocess.run(
        [sys.executable, "-m", "storagedrivers", *words, "image", "ls", "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 5
    (top,) = directory.iterdir()
    subprocess.run(["umount", top / "run/mounts"], check=True)
