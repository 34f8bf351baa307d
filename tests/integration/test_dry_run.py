"""``run --dry-run`` as a check before a run: what it prints, and its exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
from capabilities import need
from contained import BASE, clean
from programs import SCHEMAS, Done, Program, environment

from storagedrivers.storage import Storage


@pytest.fixture
def program(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Program]:
    need("mount", "overlay")
    made = Program(on_filesystem("ext4") / "store", tmp_path / "run")
    made("image", "import", "-", "base", "-c", 'CMD ["sh"]', input=BASE)
    yield made
    clean(Storage.open(root=made.root, run_root=made.run_root))


def dry_run(program: Program, *words: str) -> Done:
    given = program.command()[:-4]  # what follows the image is the command's
    command = [*given, *program.options, "run", "--dry-run", *words, "base"]
    done = subprocess.run(command, capture_output=True, check=False, env=environment())
    return Done(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("-v", "db:/data"), 0, None),
        (("-v", "db:/etc/motd/x"), 125, None),  # as making it is refused
        (("-v", "/etc:/etc/motd"), 125, "cannot cover a file"),
        (("--tmpfs", "/t:size=big"), 125, "cannot be 'big'"),
        (("--mount", "source=db,target=/x,volume-subpath=no"), 125, "which is new"),
        (("--user", "nobody", "-v", "db:/data"), 125, "has no user 'nobody'"),
        (("--user", "nobody"), 125, "has no user 'nobody'"),
    ],
)
def test_exit_code(
    program: Program, words: tuple[str, ...], code: int, problem: str | None
) -> None:
    """It is that of a run which cannot start; what is wrong stands in the plan."""
    text, document = dry_run(program, *words), dry_run(program, "--json", *words)
    assert (text.code, document.code) == (code, code)
    if problem is None and code:
        assert text.err.startswith("storagedrivers: cannot mount volume")
        return
    assert ("problem: " in text.text) == (problem is not None)
    plan = json.loads(document.out)
    described = json.loads((SCHEMAS / "plan.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(described).validate(plan)
    problems = [*plan["problems"], *(text for one in plan["mounts"] for text in one["problems"])]
    assert len(problems) == (problem is not None)
    assert problem is None or problem in problems[0]


def test_a_mode_is_octal(program: Program) -> None:
    plan = json.loads(dry_run(program, "--json", "-v", "db:/new", "--tmpfs", "/tmp").out)
    assert [one["owner"]["mode"] for one in plan["mounts"]] == ["0755", "1777"]
