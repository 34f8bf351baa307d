"""Settings: defaults < storagedrivers.toml < environment < arguments; each value knows where it is
from.

The only module that reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from storagedrivers.errors import ConfigError

KEYS = (
    "root",
    "run_root",
    "driver",
    "policy",
    "policy_file",
    "fallback",
    "log_level",
    "additional_stores",
)

CHOICES = {
    "fallback": ("warn", "refuse", "allow"),
    "log_level": ("debug", "info", "warning", "error"),
}
_PATHS = ("root", "run_root", "policy_file")
_LISTS = ("additional_stores",)  # of paths, with a colon between them, as PATH has it


class Setting(NamedTuple):
    """A value and its source: ``default``, a file, ``environment NAME`` or ``argument``."""

    value: str | None
    source: str


class StorageConfig(NamedTuple):
    """All settings.

    Attributes:
        root: the graph root, absolute.
        run_root: where layers are mounted; dies with the boot.
        driver: a driver's name, or None for the selection.
        policy: the policy's name.
        policy_file: a file with more policies, or None.
        fallback: ``warn``, ``refuse`` or ``allow``.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        additional_stores: graph roots of others whose images are used, a colon between them.
    """

    root: Setting
    run_root: Setting
    driver: Setting
    policy: Setting
    policy_file: Setting
    fallback: Setting
    log_level: Setting
    additional_stores: Setting = Setting(None, "default")

    @property
    def additional_roots(self) -> tuple[str, ...]:
        """The graph roots of *additional_stores*, one by one."""
        value = self.additional_stores.value
        return tuple(value.split(os.pathsep)) if value else ()

    @classmethod
    def load(
        cls,
        *,
        arguments: Mapping[str, str | None] | None = None,
        environment: Mapping[str, str] | None = None,
        file: str | None = None,
    ) -> StorageConfig:
        """Put the settings together.

        Args:
            arguments: by key; None counts as not given.
            environment: ``STORAGEDRIVERS_ROOT`` and so on; the process's own by default.
            file: a configuration file; else the variable ``STORAGEDRIVERS_CONFIG``, else the user's
                or the system's, if there is one.

        Raises:
            ConfigError: a malformed file, with line and key; a value that is none.
        """
        environment = os.environ if environment is None else environment
        settings = {key: Setting(value, "default") for key, value in _defaults(environment).items()}
        settings.update(_from_file(file or environment.get("STORAGEDRIVERS_CONFIG"), environment))
        for key in KEYS:
            variable = f"STORAGEDRIVERS_{key.upper()}"
            if environment.get(variable):
                settings[key] = Setting(environment[variable], f"environment {variable}")
            if arguments and arguments.get(key) is not None:
                settings[key] = Setting(arguments[key], "argument")
        return cls(**{key: _checked(key, setting) for key, setting in settings.items()})


def variable(name: str) -> str | None:
    """A variable of the process's environment that is no setting, but meant for what it does."""
    return os.environ.get(name)


def source_date_epoch() -> int | None:
    """The seconds that ``SOURCE_DATE_EPOCH`` says, see reproducible-builds.org.

    Raises:
        ConfigError: it is no number.
    """
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if not value:
        return None
    if not value.isascii() or not value.isdigit():
        raise ConfigError(
            f"SOURCE_DATE_EPOCH is {value!r}, and must be a number of seconds",
            resolution="set it as date +%s prints it, or unset it",
        )
    return int(value)


def _defaults(environment: Mapping[str, str]) -> dict[str, str | None]:
    root, run_root = "/var/lib/storagedrivers", "/run/storagedrivers"
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        data = environment.get("XDG_DATA_HOME") or os.path.join(_home(environment), ".local/share")
        root = os.path.join(data, "storagedrivers")
        runtime = environment.get("XDG_RUNTIME_DIR") or f"/tmp/storagedrivers-{os.geteuid()}"
        run_root = os.path.join(runtime, "storagedrivers")
    return {
        "root": root,
        "run_root": run_root,
        "driver": None,
        "policy": "os",
        "policy_file": None,
        "fallback": "warn",
        "log_level": "warning",
        "additional_stores": None,
    }


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")


def _from_file(file: str | None, environment: Mapping[str, str]) -> dict[str, Setting]:
    if file is None:
        file = next((one for one in _usual_files(environment) if os.path.exists(one)), None)
        if file is None:
            return {}
    from storagedrivers.toml import TomlTable

    try:
        text = Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=file) from error
    table = TomlTable.parse(text, file=file)
    table.only(KEYS)
    settings = {}
    for key in table.values:
        if key in _LISTS:
            values = table.items(key, str) or ()
            value = os.pathsep.join(_beside(file, one) for one in values) or None
        else:
            value = table.get(key, str)
        if value and key in _PATHS:
            value = _beside(file, value)
        try:
            settings[key] = _checked(key, Setting(value, file))
        except ConfigError as error:
            raise table.error(key, error.brief) from error
    return settings


def _beside(file: str, path: str) -> str:
    """A path in a file is relative to the file."""
    return os.path.join(os.path.dirname(os.path.abspath(file)), os.path.expanduser(path))


def _usual_files(environment: Mapping[str, str]) -> tuple[str, ...]:
    own = environment.get("XDG_CONFIG_HOME") or os.path.join(_home(environment), ".config")
    return (
        os.path.join(own, "storagedrivers/storagedrivers.toml"),
        "/etc/storagedrivers/storagedrivers.toml",
    )


def _checked(key: str, setting: Setting) -> Setting:
    value: Any = setting.value
    choices = CHOICES.get(key)
    if choices and value not in choices:
        place = "" if setting.source == "default" else f" ({setting.source})"
        raise ConfigError(f"{key} is {value!r}{place}, and must be one of {', '.join(choices)}")
    if value is None:
        return setting
    if not value:
        raise ConfigError(f"{key} is empty ({setting.source})")
    if "\0" in value:
        raise ConfigError(f"{key} has a NUL character in it ({setting.source})")
    if key in _LISTS:
        parts = (part for part in value.split(os.pathsep) if part)
        return Setting(os.pathsep.join(map(_absolute, parts)), setting.source)
    if key in _PATHS:
        return Setting(_absolute(value), setting.source)
    return setting


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
