"""Makes the layers that ``layers.py`` measures, and keeps them in a cache.

``debian`` is a root filesystem by debootstrap, from the mirror that apt is configured with here;
``small`` is 50,000 small files. Each as a plain tar, with gzip and with zstd.
Needs root, debootstrap and zstd.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

NAMES = ("debian", "small")

FILES = 50_000
DIRECTORIES = 2_000
LARGEST = 4_096
SEED = 20_240_229

_APT = Path("/etc/apt")

_COMPRESSORS = {".gz": ("gzip", "-6n"), ".zst": ("zstd", "-q", "-3", "-T2")}

TAR = ("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*")
"""GNU tar as one has to call it for a root filesystem."""


class Fixture(NamedTuple):
    """One layer."""

    name: str
    plain: Path
    gzip: Path
    zstd: Path
    entries: int

    @property
    def size(self) -> int:
        """Bytes of the plain tar."""
        return self.plain.stat().st_size


def default_cache() -> Path:
    """Where fixtures are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "storagedrivers-bench")


def fixture(name: str, cache: Path) -> Fixture:
    """Take a fixture from the cache; made before where it is not there."""
    place = cache / name
    if not place.exists():
        _make(name, place)
    plain = place / "layer.tar"
    entries: int = json.loads((place / "about.json").read_text())["entries"]
    return Fixture(
        name, plain, plain.with_suffix(".tar.gz"), plain.with_suffix(".tar.zst"), entries
    )


def _make(name: str, place: Path) -> None:
    """Make a fixture beside its place, and put it there when it is whole."""
    print(f"making the layer {name} in {place}", file=sys.stderr)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place.parent) as work:
        root, done = Path(work, "root"), Path(work, "done")
        root.mkdir(mode=0o755)
        done.mkdir()
        _MAKERS[name](root)
        plain = done / "layer.tar"
        subprocess.run([*TAR, "--sort=name", "-C", root, "-cf", plain, "."], check=True)
        for suffix, command in _COMPRESSORS.items():
            with open(f"{plain}{suffix}", "wb") as target:
                subprocess.run([*command, "-c", plain], check=True, stdout=target)
        entries = 1 + sum(len(names) + len(files) for _, names, files in os.walk(root))
        (done / "about.json").write_text(json.dumps({"entries": entries}))
        done.rename(place)


# The root filesystem


class _Mirror(NamedTuple):
    uri: str
    suite: str
    keyring: str | None


def _make_debian(root: Path) -> None:
    mirror = configured_mirror()
    keyring = [f"--keyring={mirror.keyring}"] if mirror.keyring else []
    # It mounts /proc and /sys in the new root: in a namespace, nothing of that outlives it.
    command = ["unshare", "--mount", "--propagation", "private", "debootstrap"]
    subprocess.run(
        [*command, "--variant=minbase", *keyring, mirror.suite, root, mirror.uri],
        check=True,
        stdout=sys.stderr,
    )


def configured_mirror() -> _Mirror:
    """The first source of apt that has the main packages of the release that runs here."""
    release = _codename()
    for mirror in _sources():
        if mirror.suite == release:
            return mirror
    sys.exit(f"no source in {_APT} offers the packages of {release}")


def _codename() -> str:
    found = re.search(r'^VERSION_CODENAME="?(\w+)', Path("/etc/os-release").read_text(), re.M)
    return found.group(1) if found else "stable"


def _sources() -> Iterator[_Mirror]:
    folder = _APT / "sources.list.d"
    for path in sorted(folder.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            yield from _of_stanza(stanza)
    for path in (_APT / "sources.list", *sorted(folder.glob("*.list"))):
        if path.exists():
            yield from _of_lines(path.read_text())


def _of_stanza(stanza: str) -> Iterator[_Mirror]:
    lines = [line for line in stanza.splitlines() if not line.startswith("#") and ":" in line]
    pairs = [line.partition(":") for line in lines]
    fields = {key.strip().lower(): value.split() for key, _, value in pairs}
    if "deb" not in fields.get("types", ()) or "main" not in fields.get("components", ()):
        return
    keyring = next((one for one in fields.get("signed-by", ()) if one.startswith("/")), None)
    for uri in fields.get("uris", ()):
        for suite in fields.get("suites", ()):
            yield _Mirror(uri, suite, keyring)


_LINE = re.compile(
    r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+.*\bmain\b"
)


def _of_lines(text: str) -> Iterator[_Mirror]:
    for line in text.splitlines():
        if found := _LINE.match(line.strip()):
            signed = re.search(r"signed-by=(/\S+)", found["options"] or "")
            yield _Mirror(found["uri"], found["suite"], signed.group(1) if signed else None)


# The small files


def _make_small(root: Path) -> None:
    dice = random.Random(SEED)
    directories = [root]
    while len(directories) < DIRECTORIES:
        parent = dice.choice(directories)
        if len(parent.relative_to(root).parts) < 8:
            directories.append(parent / f"directory-{len(directories)}")
            directories[-1].mkdir()
    for number in range(FILES):
        path = dice.choice(directories) / f"file-{number}"
        # Half of each compresses, the other half does not.
        size = dice.randrange(LARGEST + 1)
        path.write_bytes(dice.randbytes(size // 2).ljust(size, b" "))
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + dice.randrange(10**17)))


_MAKERS: Mapping[str, Callable[[Path], None]] = {"debian": _make_debian, "small": _make_small}


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_option(parser)
    parser.add_argument("--again", action="store_true", help="make them new")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all of them by default")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if options.again:
            shutil.rmtree(options.cache / name, ignore_errors=True)
        made = fixture(name, options.cache)
        print(f"{made.plain}: {made.entries} entries, {made.size} bytes")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Say where the cache is; once, where several benchmarks share the parser."""
    if parser.get_default("cache") is None:
        text = "where layers are kept (%(default)s)"
        parser.add_argument("--cache", type=Path, default=default_cache(), help=text)


if __name__ == "__main__":
    main()
