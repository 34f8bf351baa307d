"""The program as a user has it: a process, its exit code, what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

SCHEMAS = Path(__file__).parents[1] / "docs/schemas"
HEAVY = ("stevedore", "rich", "psutil", "distro", "logging", "subprocess", "tempfile", "json")
"""What a command that people wait for does not import."""


class Done(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def line(self) -> str:
        """The answer, which is one line."""
        (line,) = self.text.splitlines()
        return line


class Program:
    """The program with a store of its own."""

    def __init__(self, root: Path, run_root: Path) -> None:
        self.root = root
        self.run_root = run_root
        self.options = ("--root", str(root), "--run-root", str(run_root))

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "storagedrivers", *map(str, words), *self.options]

    def __call__(self, *words: object, code: int = 0, **more: Any) -> Done:
        """Run it; it ends with *code*, and shows no traceback."""
        if "input" not in more:
            more.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(
            self.command(*words), capture_output=True, check=False, env=environment(), **more
        )
        err = done.stderr.decode("utf-8", "surrogateescape")
        assert "Traceback" not in err, err
        assert done.returncode == code, (done.stdout, err)
        return Done(done.returncode, done.stdout, err)

    def document(self, schema: str, *words: object, code: int = 0, **more: Any) -> Any:
        """Run it with ``--json``; what it prints is as its schema says, and so is no part less."""
        done = self(*words, "--json", code=code, **more)
        described = json.loads((SCHEMAS / f"{schema}.json").read_text("utf-8"))
        jsonschema.Draft202012Validator.check_schema(described)
        validator = jsonschema.Draft202012Validator(described)
        found = json.loads(done.out)
        validator.validate(found)
        for key in found:
            assert not validator.is_valid({k: v for k, v in found.items() if k != key}), key
        assert not validator.is_valid({**found, "more": 1})
        return found

    def add(self, data: bytes, *words: object) -> str:
        return self("layer", "add", "-", *words, input=data).line


def environment() -> dict[str, str]:
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("STORAGEDRIVERS_", "XDG_", "PYTHON", "COLUMNS", "LINES"))
    }
    return {**clean, "STORAGEDRIVERS_CONFIG": os.devnull, "TERM": "xterm", "COLUMNS": "200"}
