"""Settings: which source wins, and how a malformed file is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storagedrivers.config import KEYS, Setting, StorageConfig
from storagedrivers.errors import ConfigError

_VALUES = {
    "root": "/one",
    "run_root": "/two",
    "driver": "overlay2",
    "policy": "docker-23",
    "policy_file": "/three.toml",
    "fallback": "refuse",
    "log_level": "debug",
    "additional_stores": "/four",
}


@pytest.fixture
def no_file(tmp_path: Path) -> dict[str, str]:
    """An environment whose own configuration file is empty, whatever the host's /etc holds."""
    file = tmp_path / "config/storagedrivers/storagedrivers.toml"
    file.parent.mkdir(parents=True)
    file.touch()
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def _file(tmp_path: Path, text: str) -> str:
    file = tmp_path / "storagedrivers.toml"
    file.write_text(text)
    return str(file)


def test_every_setting_has_a_value_for_the_tests() -> None:
    """The tests below try every key that exists."""
    assert set(_VALUES) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_argument_beats_environment_beats_file_beats_default(
    key: str, tmp_path: Path, no_file: dict[str, str]
) -> None:
    """Each source is overruled by the next, and the setting says which it is from."""
    other = {"fallback": "allow", "log_level": "error"}.get(key, "/another")
    text = f'["{_VALUES[key]}"]' if key == "additional_stores" else f'"{_VALUES[key]}"'
    file = _file(tmp_path, f"{key} = {text}\n")
    variable = f"STORAGEDRIVERS_{key.upper()}"
    with_variable = {**no_file, variable: other}
    value = _VALUES[key]

    default = getattr(StorageConfig.load(environment=no_file), key)
    assert default.source == "default"
    assert default.value != value
    assert getattr(StorageConfig.load(environment=no_file, file=file), key) == Setting(value, file)
    assert getattr(StorageConfig.load(environment=with_variable, file=file), key) == Setting(
        other, f"environment {variable}"
    )
    assert getattr(
        StorageConfig.load(environment=with_variable, file=file, arguments={key: value}), key
    ) == Setting(value, "argument")


_names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1)


@given(argument=st.none() | _names, variable=st.none() | _names, other=st.none() | _names)
def test_strongest_source_that_says_something_wins(
    argument: str | None, variable: str | None, other: str | None
) -> None:
    """Whatever is given where, the strongest source counts, and other keys do not disturb it."""
    environment = {"HOME": "/nowhere", "STORAGEDRIVERS_CONFIG": os.devnull}
    if variable is not None:
        environment["STORAGEDRIVERS_POLICY"] = variable
    if other is not None:
        environment["STORAGEDRIVERS_DRIVER"] = other
    config = StorageConfig.load(environment=environment, arguments={"policy": argument})
    assert config.policy.value == (argument or variable or "os")
    assert config.driver.value == other


def test_empty_variable_counts_as_not_set(no_file: dict[str, str]) -> None:
    """A variable that is exported empty changes nothing."""
    environment = {**no_file, "STORAGEDRIVERS_FALLBACK": "", "STORAGEDRIVERS_ROOT": ""}
    assert StorageConfig.load(environment=environment) == StorageConfig.load(environment=no_file)


def test_defaults_of_root_are_the_systems(
    no_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root keeps the store in /var/lib and mounts below /run, whatever XDG says."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    config = StorageConfig.load(environment={**no_file, "XDG_DATA_HOME": "/data"})
    assert config.root == Setting("/var/lib/storagedrivers", "default")
    assert config.run_root == Setting("/run/storagedrivers", "default")
    assert (config.policy.value, config.fallback.value) == ("os", "warn")
    assert (config.driver.value, config.policy_file.value) == (None, None)


def test_defaults_of_a_user_follow_xdg(
    no_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user keeps the store in XDG_DATA_HOME, else below HOME, and mounts in XDG_RUNTIME_DIR."""
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    plain = StorageConfig.load(environment=no_file)
    assert plain.root.value == f"{no_file['HOME']}/.local/share/storagedrivers"
    assert "1234" in (plain.run_root.value or "")
    xdg = {**no_file, "XDG_DATA_HOME": "/data", "XDG_RUNTIME_DIR": "/run/user/1234"}
    config = StorageConfig.load(environment=xdg)
    assert config.root.value == "/data/storagedrivers"
    assert config.run_root.value == "/run/user/1234/storagedrivers"


def test_own_file_is_found_and_the_variable_beats_it(
    tmp_path: Path, no_file: dict[str, str]
) -> None:
    """A user's file needs no option, STORAGEDRIVERS_CONFIG replaces it, and an argument both."""
    own = Path(no_file["XDG_CONFIG_HOME"], "storagedrivers/storagedrivers.toml")
    own.write_text('driver = "own"\npolicy = "own"\n')
    assert StorageConfig.load(environment=no_file).driver == Setting("own", str(own))
    named = tmp_path / "named.toml"
    named.write_text('driver = "named"\n')
    environment = {**no_file, "STORAGEDRIVERS_CONFIG": str(named)}
    config = StorageConfig.load(environment=environment)
    assert config.driver == Setting("named", str(named))
    assert config.policy == Setting("os", "default")
    third = _file(tmp_path, 'driver = "third"\n')
    assert StorageConfig.load(environment=environment, file=third).driver.value == "third"


def test_paths_become_absolute(no_file: dict[str, str], tmp_path: Path) -> None:
    """A relative path is one from the working directory; in a file, from the file's directory."""
    file = _file(tmp_path, 'policy_file = "p.toml"\n')
    config = StorageConfig.load(
        environment={**no_file, "STORAGEDRIVERS_RUN_ROOT": "run"},
        arguments={"root": "a/../b"},
        file=file,
    )
    assert config.root.value == os.path.abspath("b")
    assert config.run_root.value == os.path.abspath("run")
    assert config.policy_file.value == str(tmp_path / "p.toml")


@pytest.mark.parametrize("source", ["argument", "file"])
@pytest.mark.parametrize("key", ["root", "driver", "policy"])
def test_empty_value_is_refused(
    no_file: dict[str, str], tmp_path: Path, key: str, source: str
) -> None:
    """An empty word is no value: a script with an unset variable is told."""
    in_file = source == "file"
    with pytest.raises(ConfigError, match=f"{key} is empty"):
        StorageConfig.load(
            environment=no_file,
            arguments=None if in_file else {key: ""},
            file=_file(tmp_path, f'{key} = ""\n') if in_file else None,
        )


def test_tilde_is_the_home_directory(no_file: dict[str, str], tmp_path: Path) -> None:
    """A path in a file may begin with ``~``."""
    config = StorageConfig.load(environment=no_file, file=_file(tmp_path, 'root = "~/store"\n'))
    assert config.root.value == os.path.join(os.path.expanduser("~"), "store")


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ('root = "/a"\nroot = \n', 2, None, "not valid TOML"),
        ("root", 1, None, "not valid TOML"),
        ('\n\nroot = "/a', 3, None, "not valid TOML"),
        ('root = "/a"\nroot = "/b"\n', 2, None, "not valid TOML"),
        ('root = "/a"\n\nroots = "/b"\n', 3, "roots", "unknown key"),
        ('# root = 5\nroot = "/a"\nrun_root = 5\n', 3, "run_root", "must be a string"),
        ("driver = true\n", 1, "driver", "must be a string"),
        ('policy = "os"\ndriver = ["overlay2"]\n', 2, "driver", "must be a string"),
        ('policy = "os"\n[driver]\nname = "x"\n', 2, "driver", "must be a string"),
        ('policy = "os"\ndriver.name = "x"\n', 2, "driver", "must be a string"),
        ('"driver" = 5\n', 1, "driver", "must be a string"),
        ('fallback = "never"\n', 1, "fallback", "warn, refuse, allow"),
        ('\nlog_level = "loud"\n', 2, "log_level", "debug, info, warning, error"),
        ('root = "/a"\n"odd key" = 1\n', 2, "odd key", "unknown key"),
        ('policy = "os"\nroot = "a\\u0000b"\n', 2, "root", "NUL"),
    ],
    ids=lambda value: value[:20].replace("\n", "|") if isinstance(value, str) else "",
)
def test_malformed_file_is_told_by_file_line_and_key(
    text: str, line: int, key: str | None, words: str, tmp_path: Path, no_file: dict[str, str]
) -> None:
    """The error has the file, the exact line, the key, and says what is known or allowed."""
    file = _file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        StorageConfig.load(environment=no_file, file=file)
    assert (caught.value.file, caught.value.line, caught.value.key) == (file, line, key)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text", ["root = " + "9" * 5000, "root = " + "[" * 5000], ids=["number", "lists"]
)
def test_file_beyond_the_parsers_limits_is_malformed_too(
    text: str, tmp_path: Path, no_file: dict[str, str]
) -> None:
    """What the TOML parser gives up on is an error of the file, no traceback."""
    file = _file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        StorageConfig.load(environment=no_file, file=file)
    assert caught.value.file == file


@pytest.mark.parametrize(
    ("environment", "arguments", "source"),
    [
        ({"STORAGEDRIVERS_FALLBACK": "never"}, {}, "environment STORAGEDRIVERS_FALLBACK"),
        ({}, {"fallback": "never"}, "argument"),
        ({"STORAGEDRIVERS_FALLBACK": "warn"}, {"fallback": ""}, "argument"),
    ],
)
def test_bad_choice_tells_its_source(
    environment: dict[str, str],
    arguments: dict[str, str],
    source: str,
    no_file: dict[str, str],
) -> None:
    """A value that is none of the choices is refused with where it came from and what there is."""
    with pytest.raises(ConfigError, match="warn, refuse, allow") as caught:
        StorageConfig.load(environment={**no_file, **environment}, arguments=arguments)
    assert source in str(caught.value)


def test_bad_value_in_a_file_is_no_matter_of_what_overrules_it(
    tmp_path: Path, no_file: dict[str, str]
) -> None:
    """A wrong file is told even where an argument would have won."""
    with pytest.raises(ConfigError):
        StorageConfig.load(
            environment=no_file,
            file=_file(tmp_path, 'fallback = "never"\n'),
            arguments={"fallback": "warn"},
        )


@pytest.mark.parametrize("kind", ["missing", "directory", "not UTF-8"])
def test_file_that_cannot_be_read_is_an_error(
    kind: str, tmp_path: Path, no_file: dict[str, str]
) -> None:
    """A file that was asked for and cannot be read is never passed over."""
    file = tmp_path / "there"
    if kind == "directory":
        file.mkdir()
    elif kind == "not UTF-8":
        file.write_bytes(b'driver = "\xff"\n')
    for load in (
        lambda: StorageConfig.load(environment=no_file, file=str(file)),
        lambda: StorageConfig.load(environment={**no_file, "STORAGEDRIVERS_CONFIG": str(file)}),
    ):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load()
        assert caught.value.file == str(file)


def test_process_environment_is_the_default(
    no_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an environment the process's own is read."""
    for name, value in no_file.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGEDRIVERS_DRIVER", "vfs-copy")
    config = StorageConfig.load()
    assert config.driver == Setting("vfs-copy", "environment STORAGEDRIVERS_DRIVER")
