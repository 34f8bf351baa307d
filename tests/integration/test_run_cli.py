"""run, start, exec, stop, logs, wait and ps as a user has them: processes, exit codes, output."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from capabilities import need
from programs import SCHEMAS
from running import PATIENCE, busybox_image, command_line, remove_containers, usable
from stored import clean

from storagedrivers.storage import Storage


class Done:
    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out = done.stdout.decode()
        self.err = done.stderr.decode()


class Program:
    """The program, on a store with an image ``busybox``."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def command(self, *words: str) -> list[str]:
        return [*command_line(self.storage), *words]

    def __call__(self, *words: str, stdin: bytes = b"") -> Done:
        done = subprocess.run(
            self.command(*words), input=stdin, capture_output=True, timeout=PATIENCE, check=False
        )
        return Done(done)

    def document(self, schema: str, *words: str) -> Any:
        found = json.loads(self("--json", *words).out)
        jsonschema.validate(found, json.loads((SCHEMAS / f"{schema}.json").read_text("utf-8")))
        return found


@pytest.fixture
def program(on_filesystem: Callable[[str], Path]) -> Iterator[Program]:
    need("root", "mount", "overlay")
    directory = on_filesystem("ext4")
    with Storage.open(
        root=directory / "root", run_root=directory / "run", driver="overlay2"
    ) as storage:
        busybox_image(storage, 'CMD ["echo", "from the image"]', "ENV FROM=image")
        yield Program(storage)
        remove_containers(storage)
        clean(storage)


@pytest.fixture(params=["crun", "runc", "unshare"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with usable(request.param):
        yield request.param


def _names(program: Program) -> list[str]:
    return [one.name for one in program.storage.containers.ls()]


# run


def test_run(program: Program) -> None:
    """Output and exit code are the command's; the container stays, unless --rm."""
    done = program("run", "busybox")
    assert (done.code, done.out) == (0, "from the image\n")
    assert len(_names(program)) == 1
    done = program("run", "--rm", "busybox", "sh", "-c", "echo a; echo b >&2; exit 42")
    assert (done.code, done.out, done.err) == (42, "a\n", "b\n")
    assert len(_names(program)) == 1


def test_options_end_at_the_image(program: Program) -> None:
    """What comes after IMAGE is the command's, also what looks like an option of ours."""
    words = ("--rm", "--json", "--root", "/nowhere", "--", "-d")
    done = program("run", "--rm", "busybox", "echo", *words)
    assert (done.code, done.out.split()) == (0, [*words])


def test_run_as_asked(program: Program, tmp_path: Path) -> None:
    """Variables, user, directory, host name, labels and a name."""
    file = tmp_path / "env"
    file.write_text("# comment\nONE=1\n\nTWO=two words\n")
    options = ["--name", "named", "--env-file", str(file), "-e", "ONE=first", "--user", "svc"]
    options += ["--workdir", "/w", "--hostname", "guest", "--label", "a=b", "--tmpfs", "/t"]
    script = 'echo "$FROM|$ONE|$TWO|$HOME|$(pwd)|$(hostname)|$(id -u)"; grep -c " /t " /proc/mounts'
    done = program("run", *options, "busybox", "sh", "-c", script)
    assert done.out.split("\n")[:2] == ["image|first|two words|/srv|/w|guest|12", "1"]
    assert program.storage.containers.get("named").config["Labels"] == {"a": "b"}


def test_entry_point(program: Program) -> None:
    """It takes the place of the image's command, too."""
    done = program("run", "--rm", "--entrypoint", "echo", "busybox", "x")
    assert done.out == "x\n"
    assert program("run", "--rm", "--entrypoint", "pwd", "busybox").out == "/\n"


def test_no_entry_point(program: Program) -> None:
    """An empty one takes the image's away, and its command."""
    assert program("run", "--rm", "--entrypoint", "", "busybox", "echo", "x").out == "x\n"
    done = program("run", "--rm", "--entrypoint", "", "busybox")
    assert (done.code, done.out) == (125, "")
    assert "no command was given" in done.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("busybox", "nowhere"), 127, "nowhere"),
        (("busybox", "/bin/plain"), 126, "/bin/plain"),
        (("--user", "nobody", "busybox", "true"), 125, "nobody"),
        (("--workdir", "relative", "busybox", "true"), 125, "relative"),
        (("no/such:image", "true"), 125, "no/such"),
        (("--name", "-", "busybox", "true"), 125, "'-'"),
        (("--tmpfs", "relative", "busybox", "true"), 125, "relative"),
        (("--stop-signal", "SIGNO", "busybox", "true"), 125, "SIGNO"),
        (("--label", "=x", "busybox", "true"), 125, "has no name"),
    ],
)
@pytest.mark.parametrize("detach", [False, True])
def test_failures(
    program: Program, words: tuple[str, ...], code: int, says: str, detach: bool
) -> None:
    """Docker's exit codes, a sentence, and with --rm nothing is left."""
    options = ["--detach"] if detach else []
    done = program("run", "--rm", *options, *words)
    assert done.code == code
    assert done.out == ""
    assert says in done.err
    assert "Traceback" not in done.err
    assert _names(program) == []
    assert program.storage.layers.mounts() == []


def test_failed_start_leaves_the_container(program: Program) -> None:
    """Without --rm it is there, as with Docker, and says what went wrong."""
    assert program("run", "--name", "left", "busybox", "nowhere").code == 127
    assert program.storage.runtime.state("left").exit_code == 127
    assert program("start", "left").code == 1
    assert program("start", "-a", "left").code == 127


@pytest.mark.parametrize("words", [("run",), ("run", "--nosuch", "busybox"), ("exec", "x")])
def test_wrong_usage(program: Program, words: tuple[str, ...]) -> None:
    """It is exit code 2, as everywhere in this program."""
    done = program(*words)
    assert done.code == 2
    assert "usage" in done.err


def test_standard_input(program: Program, engine: str) -> None:
    """With -i it is the command's; without, there is none."""
    data = b"x" * 300_000 + b"\n"
    done = program("run", "--rm", "--runtime", engine, "-i", "busybox", "wc", "-c", stdin=data)
    assert done.out.split() == ["300001"]
    done = program("run", "--rm", "--runtime", engine, "busybox", "wc", "-c", stdin=data)
    assert done.out.split() == ["0"]


def test_capabilities_that_would_be_inherited(program: Program, engine: str) -> None:
    """What the user's process hands on to its programs is not the container's."""
    need("setpriv")
    options = ("--inh-caps=+sys_time,+mknod", "--ambient-caps=+sys_time,+mknod")
    script = ("cat", "/proc/self/status")
    words = program.command("run", "--rm", "--runtime", engine, "busybox", *script)
    result = subprocess.run(
        ["setpriv", *options, *words], capture_output=True, timeout=PATIENCE, check=False
    )
    lines = Done(result).out.splitlines()
    found = {line.split()[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}
    assert found["CapInh:"] == found["CapAmb:"] == 0
    assert found["CapEff:"] == found["CapBnd:"]
    assert not found["CapEff:"] >> 25 & 1


def test_no_terminal(program: Program) -> None:
    """-it with a file for standard input is refused, as with Docker; nothing is made."""
    done = program("run", "-it", "busybox", "true")
    assert done.code == 125
    assert "no terminal" in done.err
    assert _names(program) == []


def test_signals(program: Program, engine: str) -> None:
    """A signal to the program is one to the command, whose exit code comes back."""
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    words = program.command("run", "--rm", "--runtime", engine, "busybox", "sh", "-c", script)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 9
    assert _names(program) == []
    assert program.storage.layers.mounts() == []


def test_killed_while_it_waits(program: Program) -> None:
    """A program that is killed leaves a container that stop clears away."""
    words = program.command("run", "--name", "lost", "busybox", "sh", "-c", "echo x; sleep 1000")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"x\n"
        process.kill()
    assert program("stop", "lost").code == 0
    assert program.storage.layers.mounts() == []
    assert program("container", "rm", "lost").code == 0


def test_terminal(program: Program, engine: str) -> None:
    """-it: a terminal of its own, as large as the user's, in which keys mean what they mean."""
    words = program.command("run", "--rm", "-it", "--runtime", engine, "busybox", "sh")
    with _Session(words, rows=33, columns=111) as session:
        session.expect("# ")
        session.type("test -t 0 && test -t 1 && echo is-a-$((1 + 1))-tty; stty size\r")
        session.expect(r"is-a-2-tty\r\n33 111")
        session.resize(rows=44, columns=122)
        session.type("stty size\r", again=True)
        session.expect(r"44 122")
        # Before the shell has given the terminal to its child, the key is the shell's: the child
        # says that it has it.
        session.type("echo $TERM; sh -c 'echo rea\\dy; exec sleep 1000'\r")
        session.expect(r"xterm\r\n")
        session.expect(r"ready\r\n")
        session.type("\x03", again=True)
        session.expect("# ")
        session.type("echo code-$?\r")
        session.expect(r"code-130")
        session.type("exit 7\r")
        assert session.wait() == 7
        assert session.is_as_before()
    assert _names(program) == []


class _Session:
    """A program at a terminal."""

    def __init__(self, words: list[str], *, rows: int, columns: int) -> None:
        self._master, slave = pty.openpty()
        self._slave = slave
        self._before = termios.tcgetattr(slave)
        self._typed = ""
        self.resize(rows=rows, columns=columns)
        self._process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        self._seen = ""

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._slave)

    def resize(self, *, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self._slave, (rows, columns))
        if hasattr(self, "_process"):  # which does not own the terminal
            self._process.send_signal(signal.SIGWINCH)

    def type(self, keys: str, *, again: bool = False) -> None:
        """Type; *again* every now and then until what is expected comes."""
        self._typed = keys if again else ""
        os.write(self._master, keys.encode())

    def expect(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self._seen)):
            assert time.monotonic() < deadline, self._seen
            if select.select([self._master], [], [], 0.5)[0]:
                self._seen += os.read(self._master, 65536).decode(errors="replace")
            elif self._typed:
                os.write(self._master, self._typed.encode())
        self._seen = self._seen[found.end() :]

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self._master], [], [], 0.05)[0]:
                os.read(self._master, 65536)
        return self._process.returncode

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._slave) == self._before


# Detached


def test_detached(program: Program) -> None:
    """It prints the id and goes on; logs, ps, exec, wait and stop deal with it."""
    script = "echo out; echo err >&2; trap 'exit 5' TERM; while :; do sleep 0.05; done"
    done = program("run", "-d", "--name", "back", "busybox", "sh", "-c", script)
    (identity,) = done.out.split()
    assert re.fullmatch("[0-9a-f]{64}", identity)
    assert done.err == ""
    assert program("ps", "-q").out.split() == [identity[:12]]
    done = program(
        "exec", "-e", "A=1", "-w", "/tmp", "back", "sh", "-c", 'echo "$A $(pwd)"; exit 3'
    )
    assert (done.code, done.out) == (3, "1 /tmp\n")
    assert program("exec", "-i", "back", "cat", stdin=b"typed").out == "typed"
    done = program("stop", "back")
    assert (done.code, done.out) == (0, "back\n")
    assert program("wait", "back").out == "5\n"
    assert program("ps", "-q").out == ""
    assert program("ps", "-aq").out.split() == [identity[:12]]
    done = program("logs", "back")
    assert (done.out, done.err) == ("out\n", "err\n")
    assert program("exec", "back", "true").code == 1


def test_logs(program: Program) -> None:
    """The last lines, when they were written, later ones, and on until the end."""
    script = "seq 5; sleep 0.5; echo end"
    assert program("run", "-d", "--name", "back", "busybox", "sh", "-c", script).code == 0
    assert program("logs", "-f", "back").out.split() == ["1", "2", "3", "4", "5", "end"]
    assert program("logs", "--tail", "2", "back").out == "5\nend\n"
    line = program("logs", "--timestamps", "--tail", "1", "back").out
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z end\n", line)
    assert program("logs", "--since", line.split()[0], "back").out.endswith("end\n")
    assert program("logs", "--since", "2000-01-01T00:00:00Z", "back").out.count("\n") == 6
    assert program("logs", "--since", "4000000000", "back").out == ""
    assert program("logs", "--since", "1h30m", "back").out.count("\n") == 6
    for words in (("--tail", "x"), ("--since", "yesterday")):
        assert program("logs", *words, "back").code == 1


def test_logs_in_one_file(program: Program, tmp_path: Path) -> None:
    """What went to two streams comes in the order in which it was written."""
    script = "for i in 1 2 3; do echo out $i; sleep 0.1; echo err $i >&2; sleep 0.1; done"
    assert program("run", "-d", "--name", "back", "busybox", "sh", "-c", script).code == 0
    assert program("wait", "back").code == 0
    for options in ([], ["-f"]):
        with (tmp_path / "all").open("wb") as file:
            words = program.command("logs", *options, "back")
            environment = {key: it for key, it in os.environ.items() if key != "PYTHONUNBUFFERED"}
            subprocess.run(
                words, stdout=file, stderr=file, env=environment, check=True, timeout=PATIENCE
            )
        lines = (tmp_path / "all").read_text().splitlines()
        assert lines == ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3"]


def test_start_of_one_that_runs(program: Program) -> None:
    """As Docker, nothing is to be done, and that is no error; to attach to it is one."""
    assert program("run", "-d", "--name", "back", "busybox", "sleep", "1000").code == 0
    pid = program.storage.runtime.state("back").pid
    done = program("start", "back")
    assert (done.code, done.out, done.err) == (0, "back\n", "")
    assert program.storage.runtime.state("back").pid == pid
    assert program("start", "-a", "back").code == 1


def test_documents(program: Program) -> None:
    """--json of what answers with more than the output of a command."""
    words = ("run", "-d", "--name", "back", "busybox", "sleep", "1000")
    made = program.document("container", *words)
    assert made["name"] == "back"
    running = program.document("container-done", "start", "back")
    assert running["containers"] == [{"container": made["id"], "done": True, "error": None}]
    stopped = program.document("container-done", "stop", "-t", "0", "back", "none")
    assert [one["done"] for one in stopped["containers"]] == [True, False]
    ended = program.document("container-wait", "wait", "back", "none")["containers"]
    assert ended[0] == {"container": made["id"], "exit_code": 137, "error": None}
    assert ended[1]["exit_code"] is None
    assert "there is no container" in ended[1]["error"]


def test_start_again(program: Program) -> None:
    """A start runs it detached, start -a in the foreground; the log goes on."""
    assert program("container", "create", "--name", "again", "busybox").code == 0
    assert program("start", "again").out == "again\n"
    assert program("wait", "again").out == "0\n"
    done = program("start", "-a", "again")
    assert (done.code, done.out) == (0, "from the image\n")
    assert program("start", "again", "missing").code == 1
    assert program("wait", "again").out == "0\n"
    assert program("logs", "again").out == "from the image\n" * 2


def test_forced_removal(program: Program) -> None:
    """Removing with --force ends what runs, and nothing is left of it."""
    assert program("run", "-d", "--name", "back", "busybox", "sleep", "1000").code == 0
    pid = program.storage.runtime.state("back").pid
    assert program("container", "rm", "back").code == 1
    assert program("container", "rm", "--force", "back").code == 0
    assert not os.path.exists(f"/proc/{pid}")
    assert _names(program) == []


def test_output_is_not_held(program: Program) -> None:
    """Who reads the id to the end of the file does not wait for the container."""
    words = program.command("run", "-d", "busybox", "sleep", "1000")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (len(out), err) == (65, b"")


def test_detached_terminal(program: Program, engine: str) -> None:
    """-dt: what a terminal gets is in the log; nobody types, and nothing ends."""
    options = ["-dit", "--name", "back", "--runtime", engine]
    assert program("run", *options, "busybox", "sh", "-c", "tty -s; echo $?; cat").code == 0
    deadline = time.monotonic() + PATIENCE
    while program("logs", "back").out != "0\r\n":
        assert time.monotonic() < deadline
    assert program("ps", "-q").out
    assert program("stop", "-t", "0", "back").code == 0
    assert program("wait", "back").out == "137\n"
