"""build as a user has it: what it prints, what it shares, what it does again and what not."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from capabilities import need
from programs import HEAVY, SCHEMAS, Done, Program, environment
from running import PATIENCE
from stored import clean, release

from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.storage import Storage

EXAMPLES = Path(__file__).parents[2] / "examples/build"
SHARED = 4  # steps that the Dockerfiles of both applications begin with
_SCHEMA = json.loads((SCHEMAS / "build-event.json").read_text("utf-8"))
_EVENTS = jsonschema.Draft202012Validator(_SCHEMA)

Event = dict[str, Any]


class Builder(Program):
    """The program, on a store with an image ``base``, and a directory with the two applications."""

    def __init__(self, root: Path, run_root: Path, context: Path) -> None:
        super().__init__(root, run_root)
        self.context = context

    def command(self, *words: object) -> list[str]:
        """Options come first: those behind the image are its command's."""
        return [sys.executable, "-m", "storagedrivers", *self.options, *map(str, words)]

    def open(self) -> Storage:
        return Storage.open(root=self.root, run_root=self.run_root, driver="overlay2")

    def application(self, name: str, *options: str, **more: Any) -> Done:
        file = self.context / name / "Dockerfile"
        return self("build", "-t", name, "-f", file, *options, self.context, **more)

    def text(self, dockerfile: str, *options: object, **more: Any) -> Done:
        """Build what a text says."""
        words = ("build", *options, "-f", "-", self.context)
        return self(*words, input=dockerfile.encode(), **more)


def events(done: Done) -> list[Event]:
    """What a build told; every line is as the schema says, and no part less."""
    found = [json.loads(line) for line in done.err.splitlines()]
    for one in found:
        _EVENTS.validate(one)
        for key in one:
            assert not _EVENTS.is_valid({k: v for k, v in one.items() if k != key}), key
        assert not _EVENTS.is_valid({**one, "more": 1})
    return found


def steps(done: Done) -> list[tuple[bool, str | None]]:
    """Of each step, in their order, whether it was cached, and its layer."""
    ended = {one["step"]: one for one in events(done) if one["event"] == "step-done"}
    return [(ended[number]["cached"], ended[number]["layer"]) for number in sorted(ended)]


@pytest.fixture
def build(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Builder]:
    need("root", "mount", "overlay")
    context = tmp_path / "context"
    shutil.copytree(EXAMPLES, context)
    made = Builder(on_filesystem("ext4") / "store", tmp_path / "run", context)
    tar = subprocess.run(["sh", EXAMPLES / "base.sh"], capture_output=True, check=True).stdout
    with made.open() as storage:
        storage.images.import_(io.BytesIO(tar), name="base")
    yield made
    with made.open() as storage:
        assert storage.containers.ls() == []
        storage.images.prune(all=True)
        storage.build_cache.prune(all=True)
    clean(made.open())
    release(made.run_root)


def test_two_applications_share_what_is_the_same(build: Builder) -> None:
    """The second one gets the first one's layers, which are on the disk once."""
    first = steps(build.application("hello", "--progress=json"))
    assert [cached for cached, _ in first] == [True] + [False] * 5
    before = set(os.listdir(build.root / "overlay2"))
    second = steps(build.application("clock", "--progress=json"))
    assert second[:SHARED] == [(True, layer) for _, layer in first[:SHARED]]
    assert [cached for cached, _ in second[SHARED:]] == [False] * 2
    new = set(os.listdir(build.root / "overlay2")) - before
    assert new == {second[SHARED][1]}, "only the layer with the application's source"
    assert build("run", "--rm", "hello", "you").text.splitlines()[1] == "| hello, you |"
    assert re.search(r"\| \d\d:\d\d UTC \|", build("run", "--rm", "clock").text)


def test_what_did_not_change_is_not_built(build: Builder) -> None:
    """Times are no change; a changed file is built from its COPY on."""
    first = build.application("hello", "--progress=json")
    for path in build.context.rglob("*"):
        os.utime(path, (1, 1))
    touched = build.application("hello", "--progress=json")
    assert touched.line == first.line
    assert [cached for cached, _ in steps(touched)] == [True] * 6
    source = build.context / "hello/hello.sh"
    source.write_text(source.read_text().replace("hello", "good morning"))
    changed = build.application("hello", "--progress=json")
    assert changed.line != first.line
    assert [cached for cached, _ in steps(changed)] == [True] * SHARED + [False] * 2
    assert [layer for _, layer in steps(changed)][:SHARED] == [
        layer for _, layer in steps(first)[:SHARED]
    ]
    assert build("run", "--rm", "hello").text.splitlines()[1] == "| good morning, world |"


def test_plain_lines(build: Builder) -> None:
    """What a log has, as Docker's users know it; standard output has the id alone."""
    done = build.application("hello")
    lines = done.err.splitlines()
    assert lines[0] == "Step 1/6 : FROM base"
    assert re.fullmatch(r" ---> CACHED( \S+ \S+)? \w{12}", lines[1])
    assert lines[2] == "Step 2/6 : RUN mkdir /opt && cp -r /bin /opt/packages"
    assert re.fullmatch(r" ---> DONE \d+\.\ds \S+ [KM]iB \w{12}", lines[3])
    assert lines[-2:] == [
        f"Successfully built {done.line[7:19]}",
        "Successfully tagged hello:latest",
    ]
    again = build.application("hello")
    assert again.err.count(" ---> CACHED") == 6
    assert build.application("hello", "-q").err == ""


def test_explain_says_what_changed(build: Builder) -> None:
    build.application("hello")
    script = build.context / "hello/hello.sh"
    script.chmod(0o755)
    done = build.application("hello", "--explain")
    why = [line for line in done.err.splitlines() if "not cached" in line]
    assert len(why) == 1
    assert re.fullmatch(r" ---> not cached: .*mode of hello/hello\.sh 0644 → 0755", why[0])
    (build.context / "shared/more.sh").write_text("")
    done = build.application("hello", "--explain", "--progress=json")
    found = [one["why"] for one in events(done) if one["event"] == "step-done"]
    assert "shared/more.sh is new" in found[3]
    assert found[:3] == ["", "", ""]


FAILING = """\
FROM base
RUN echo fine > /file
RUN echo one; \\
    echo two; \\
    exit 7
CMD ["sh"]
"""


@pytest.mark.parametrize("progress", ["plain", "json", "quiet"])
def test_run_that_fails(build: Builder, progress: str) -> None:
    """Its output, its lines in the Dockerfile, its exit code, and an image to look around in."""
    options = ("-q",) if progress == "quiet" else (f"--progress={progress}",)
    done = build.text(FAILING, *options, code=7)
    assert done.out == b""
    if progress == "json":
        *_, failed, error = events(done)
        assert (failed["event"], failed["step"]) == ("step-failed", 3)
        assert (error["line"], error["exit_code"]) == (3, 7)
        text, image = error["details"], error["image"]
        written = [one["text"] for one in events(done) if one["event"] == "output"]
        assert "".join(written) == "one\ntwo\n"
    else:
        text = done.err
        assert "one\ntwo\n" in text
        (image,) = re.findall(r"last good image: (sha256:\w{64})", text)
        assert f"storagedrivers run --rm -it {image[7:19]} sh" in text
    assert "→ 3 | RUN echo one; \\\n" in text.replace("\n  ", "\n")
    assert "→ 5 |     exit 7\n" in text
    assert "  2 | RUN echo fine > /file" in text
    assert build("run", "--rm", image, "cat", "/file").text == "fine\n"


def test_errors_name_the_line(build: Builder) -> None:
    done = build.text("FROM base\nRUNN x\n", code=1)
    assert "Dockerfile line 2: unknown instruction: RUNN\n  RUNN x\n  ^^^^\n" in done.err
    assert "→ did you mean RUN?" in done.err
    done = build.text("FROM base\n\nCOPY shard /\n", code=1)
    assert "  → 3 | COPY shard /\n" in done.err
    done = build.text("FROM nothing\n", "--progress=json", code=1)
    (error,) = (one for one in events(done) if one["event"] == "error")
    assert "nothing" in error["message"]
    assert (error["line"], error["image"], error["exit_code"]) == (1, None, 1)


def test_where_the_files_come_from(build: Builder, tmp_path: Path) -> None:
    """A tar on standard input, a Dockerfile alone on it, one that is elsewhere."""
    at_hand = build.application("hello", "-q").line
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.add(build.context, ".")
    words = ("build", "-q", "-f", "hello/Dockerfile", "-")
    assert build(*words, input=data.getvalue()).line == at_hand
    alone = build("build", "-", input=b"FROM base\nLABEL a=b\n").line
    assert build.text("FROM base\nLABEL a=b\n").line == alone
    elsewhere = tmp_path / "elsewhere"
    shutil.move(build.context / "hello/Dockerfile", elsewhere)
    assert build("build", "-f", elsewhere, build.context).line == at_hand
    assert "cannot be both" in build("build", "-f", "-", "-", input=b"FROM base", code=1).err
    assert f"build - < {elsewhere}" in build("build", elsewhere, code=1).err
    done = build("build", "-f", "Dockerfile", build.context / "clock", cwd=tmp_path, code=1)
    assert f"write -f {build.context}/clock/Dockerfile" in done.err
    done = build("build", build.context, code=1)
    assert "Dockerfile: there is no such file\n  → name the Dockerfile: -f " in done.err
    shutil.copy(elsewhere, build.context / "dockerfile")
    assert build("build", build.context).line == at_hand
    assert "is fetched" in build("build", "https://x/y.git", code=1).err


def test_dockerfile_that_is_none(build: Builder, tmp_path: Path) -> None:
    """What has no end, and what would be waited for without one."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    os.mkfifo(build.context / "fifo")
    for file in (fifo, build.context / "fifo", "/dev/zero", tmp_path):
        done = build("build", "-f", file, build.context, code=1, timeout=PATIENCE)
        assert f"{file}: a Dockerfile is a regular file" in done.err
    with open("/dev/zero", "rb") as endless:
        done = build("build", "-f", "-", build.context, stdin=endless, code=1, timeout=PATIENCE)
    assert "standard input: what should be a Dockerfile is longer than 8388608 bytes" in done.err
    long = b"FROM base\n" + b"#\n" * (4 << 20)
    assert "is longer than 8388608 bytes" in build("build", "-", input=long, code=1).err
    fifo.unlink()
    fifo.write_bytes(long)
    assert f"{fifo}: what should" in build("build", "-f", fifo, build.context, code=1).err
    assert build("build", "-", input=long[: 8 << 20]).line == build.text("FROM base\n").line


def test_dockerignore_that_is_no_file_is_not_taken_as_none(build: Builder, tmp_path: Path) -> None:
    """Else all would be copied, what it should leave out too."""
    (tmp_path / "outside").write_text("hello\n")
    ignore = build.context / ".dockerignore"
    text = "FROM base\nCOPY . /all\n"
    for target in (str(tmp_path / "outside"), "../outside", "none", "hello"):
        ignore.symlink_to(target)
        assert ".dockerignore of the build context is a symlink" in build.text(text, code=1).err
        ignore.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(ignore)
        done = build.text(text, code=1, timeout=PATIENCE)
        assert ".dockerignore of the build context is no regular file" in done.err
        (os.rmdir if ignore.is_dir() else os.unlink)(ignore)
    (build.context / "lines").write_text("hello\nclock\n")
    ignore.symlink_to("lines")
    image = build.text(text).line
    assert "hello" not in build("run", "--rm", image, "ls", "/all").text.split()


def test_options(build: Builder, tmp_path: Path) -> None:
    """Those that say what the image is, and those that scripts have and that do nothing."""
    text = "ARG FROM=base\nFROM $FROM AS one\nARG A\nARG B\nLABEL a=$A b=$B\nFROM base\nLABEL c=d\n"
    file = tmp_path / "id"
    file.write_text("that of another build")
    options = (
        *("--target", "one", "--build-arg", "A=1", "--build-arg", "HOME", "--build-arg", "B=2"),
        *("--label", "x=y", "--label", "z", "-t", "one", "-t", "other:2", "--iidfile", file),
        *("--rm", "--force-rm=true", "--compress", "--pull=never", "--no-cache=false", "--load"),
        *("--provenance=false", "--memory", "1g", "--network", "none"),
    )
    done = build.text(text, *options)
    assert file.read_text() == done.line
    assert "--memory: taken and not used" in done.err
    assert "HOME" in done.err, "a build-arg that nothing takes is said"
    image = build("image", "inspect", done.line, "--json").out
    (found,) = json.loads(image)["images"]
    assert found["config"]["Labels"] == {"a": "1", "b": "2", "x": "y", "z": ""}
    assert found["names"] == ["docker.io/library/one:latest", "docker.io/library/other:2"]
    document = build.document("image", "build", "-", input=b"FROM base\n")
    assert document["source"] == "import", "FROM alone is the image that it names"
    file.write_text("that of another build")
    build.text("FROM nothing", "--iidfile", file, code=1)
    assert not file.exists()


@pytest.mark.parametrize(
    "option",
    ["--secret=id=a", "--ssh=default", "--squash", "-oout", "--add-host=a:1", "--sbom=true"],
)
def test_options_that_would_not_do_what_they_say_are_refused(build: Builder, option: str) -> None:
    done = build.text("FROM base\n", option, code=1)
    assert re.search(r"^storagedrivers: --?\w[\w-]* is not taken: .+\n  → .+$", done.err)


def test_source_date_epoch_makes_the_same_image(build: Builder) -> None:
    env = {**environment(), "SOURCE_DATE_EPOCH": "1600000000"}
    command = build.command("build", "--no-cache", "-q", "-f", build.context / "clock/Dockerfile")

    def image() -> str:
        done = subprocess.run(
            [*command, build.context], env=env, capture_output=True, check=True, text=True
        )
        return done.stdout.strip()

    first = image()
    time.sleep(1.1)  # files and images have another time then
    assert image() == first
    env["SOURCE_DATE_EPOCH"] = "yesterday"
    done = subprocess.run([*command, build.context], env=env, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"SOURCE_DATE_EPOCH" in done.stderr


class Terminal:
    """A build that has a terminal for its standard error."""

    def __init__(self, build: Builder, *words: object, dockerfile: str) -> None:
        (build.context / "Dockerfile").write_text(dockerfile)
        self._end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            build.command("build", *words, build.context),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=environment(),
        )  # fmt: skip
        os.close(theirs)
        self.shown = b""

    def read(self, until: bytes = b"") -> str:
        """What is shown, up to its end or to *until*."""
        try:
            while (not until or until not in self.shown) and (data := os.read(self._end, 4096)):
                self.shown += data
        except OSError:  # the other end is closed
            pass
        return self.shown.decode()

    def wait(self) -> int:
        assert self.process.stdout is not None
        self.process.stdout.close()
        code = self.process.wait(PATIENCE)
        os.close(self._end)
        return code


def test_terminal_shows_what_runs_and_keeps_a_line_for_each_step(build: Builder) -> None:
    dockerfile = "FROM base\nRUN echo begun; sleep 1.5; echo over\nLABEL a=b\n"
    terminal = Terminal(build, dockerfile=dockerfile)
    assert "begun" in terminal.read(until=b"begun")
    shown = terminal.read()
    assert terminal.wait() == 0
    assert re.search(r"CACHED +(\S+ \S+)? +1/3 FROM base", shown)
    assert re.search(r"\d\.\ds +2/3 RUN echo begun; sleep 1\.5; echo over", shown)
    assert "Successfully built" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is there again"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_interrupted_on_a_terminal_leaves_it_clean(build: Builder, number: int) -> None:
    terminal = Terminal(build, dockerfile="FROM base\nRUN echo begun; sleep 100\n")
    terminal.read(until=b"begun")
    terminal.process.send_signal(number)
    shown = terminal.read()
    assert terminal.wait() == 128 + number
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "Traceback" not in shown
    mounted = {one.mountpoint for one in read_mountinfo()}
    assert {one for one in mounted if one.startswith(str(build.root))} == set()
    terminal = Terminal(build, dockerfile="FROM base\nRUN echo next; exit 3\n")
    assert "next" in terminal.read()
    assert terminal.wait() == 3


PROJECT = EXAMPLES.parents[1]


def _commands(text: str) -> str:
    return "".join(re.findall(r"^ {4}(.*\n)", text, re.MULTILINE))


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_commands_of_the_pages(build: Builder, page: str, tmp_path: Path) -> None:
    """What a reader would type works, in the order of the page."""
    text = (PROJECT / page).read_text("utf-8")
    if page == "README.md":
        commands = _commands(text.split("\nTwo applications")[1].split("\nAn image of Docker's")[0])
        directory = PROJECT
    else:
        commands = _commands(text.split("\n## build [PATH]\n")[1].split("\n## ")[0])
        directory = build.context
        (directory / "Dockerfile").write_text(
            "FROM base\nARG VERSION\nFROM base AS test\nFROM base\nCMD echo run\n"
        )
    program = tmp_path / "storagedrivers"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m storagedrivers "$@"\n')
    program.chmod(0o755)
    more = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STORAGEDRIVERS_ROOT": str(build.root),
        "STORAGEDRIVERS_RUN_ROOT": str(build.run_root),
    }
    done = subprocess.run(
        ["bash", "-e"],
        cwd=directory, env={**environment(), **more},
        input=commands.replace("sudo .venv/bin/", ""),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *ids, last = done.stdout.splitlines()
    assert "run" in last or set(last) == {"+", "-"}
    assert len([one for one in ids if one.startswith("sha256:")]) == len(
        re.findall(r"build |image import", commands)
    )


def test_cached_build_imports_little(build: Builder) -> None:
    build.application("hello")
    command = build.command("build", "-f", build.context / "hello/Dockerfile", build.context)
    command[1:1] = ["-X", "importtime"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment(), text=True)
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")
    }
    assert imported & (set(HEAVY) - {"json"}) == set()
