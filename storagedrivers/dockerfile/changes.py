"""What an instruction of a Dockerfile does to the config of an image, as Docker's own builder of
20.10 does it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from storagedrivers.errors import DockerfileError, StoreError, did_you_mean

if TYPE_CHECKING:
    from storagedrivers.dockerfile.instructions import Instruction

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Docker's own builder also has Hostname, Domainname, AttachStdin, AttachStdout, AttachStderr, Tty,
# OpenStdin, StdinOnce, NetworkDisabled, MacAddress and Image. Nobody takes any of them from an
# image, and the last one is different each time.
_KEPT = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"),
    *("StopSignal", "Healthcheck", "Shell", "StopTimeout", "ArgsEscaped"),
)


class Config(dict[str, Any]):
    """How to run an image, while a stage changes it.

    Attributes:
        has_command: the stage itself said CMD, which an ENTRYPOINT after it leaves alone.
    """

    has_command = False


def base_config(config: Mapping[str, Any] | None) -> Config:
    """What an image has of the one that it is made of.

    Args:
        config: how to run that one; None for ``FROM scratch``. Its triggers are left out, see
            :func:`triggers`; PATH is always there.
    """
    found = Config()
    for key in _KEPT:
        _set(found, key, (config or {}).get(key))
    env = list(found.get("Env", ()))
    if not any(one.partition("=")[0] == "PATH" for one in env):
        found["Env"] = [*env, f"PATH={DEFAULT_PATH}"]
    return found


def triggers(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The instructions that an image wants to be carried out in those that are made of it."""
    return tuple((config or {}).get("OnBuild") or ())


def shell(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What runs the shell form of a command."""
    return tuple(config.get("Shell") or DEFAULT_SHELL)


def apply(config: dict[str, Any], instruction: Instruction) -> None:
    """Do to a config what an instruction says, whose variables are replaced.

    Args:
        config: how to run an image; changed in place, though no list or object in it is. A plain
            ``dict`` does not remember whether it was the stage that said CMD.

    Raises:
        DockerfileError: the instruction cannot be taken.
    """
    try:
        _CHANGES[instruction.word](config, instruction)
    except ValueError as error:
        raise _error(instruction, str(error)) from error


def _error(instruction: Instruction, why: str) -> DockerfileError:
    from storagedrivers.dockerfile.faults import Fault, error_of

    fault = Fault(why, width=len(instruction.text), resolution=_RESOLUTIONS.get(instruction.word))
    place = len(instruction.word) + 1
    return error_of(fault, "", instruction.line, instruction.source, place)


_RESOLUTIONS = {
    "EXPOSE": "write ports as 80, 53/udp or 8000-8010",
    "HEALTHCHECK": "write NONE, or --interval=30s --timeout=5s --retries=3 CMD and a command",
    "VOLUME": 'write a path, or several: ["/data", "/var/log"]',
    "WORKDIR": "write a path; a variable in it may have no value",
    "STOPSIGNAL": "name a signal as kill -l does: SIGTERM, TERM or 15",
}


def apply_changes(config: dict[str, Any], lines: Iterable[str]) -> None:
    """Apply instructions as ``--change`` of commit and import takes them.

    An ENTRYPOINT takes the old CMD away, but not one that the lines set. What a HEALTHCHECK does
    not say is as it was before all of them.

    Args:
        config: how to run an image; changed in place.

    Raises:
        StoreError: a line is no change; names it.
    """
    changed = Config(config)
    for line in lines:
        if _word(line) == "HEALTHCHECK":
            _set(changed, "Healthcheck", config.get("Healthcheck"))
        apply_change(changed, line)
    config.clear()
    config.update(changed)


def apply_change(config: dict[str, Any], line: str) -> None:
    """Apply one line: ``CMD ["sh"]``, ``ENV A=b``.

    Raises:
        StoreError: it is no change; says why.
    """
    from storagedrivers.dockerfile.parser import parse_instruction
    from storagedrivers.dockerfile.variables import expand_instruction

    word = _word(line)
    if word not in CHANGES:
        raise StoreError(
            f"{line!r} is no change: there is no {word or 'word in it'}",
            resolution=did_you_mean(word, CHANGES) or f"changes are {', '.join(CHANGES)}",
        )
    if len(line.split(None, 1)) < 2:
        raise _no_change(line, f"{word} wants something behind it")
    environment = dict(one.partition("=")[::2] for one in config.get("Env") or ())
    try:
        apply(config, expand_instruction(parse_instruction(line), environment, "\\"))
    except DockerfileError as error:
        raise _no_change(line, error.brief, error.details, error.resolution) from error


def _word(line: str) -> str:
    return (line.split(None, 1) or [""])[0].upper()


def _no_change(
    line: str, why: str, details: str | None = None, resolution: str | None = None
) -> StoreError:
    return StoreError(
        f"{line!r} is no change: {why}",
        details=details,
        resolution=resolution or "write it as in a Dockerfile",
    )


def label_steps(labels: Mapping[str, str]) -> list[Instruction]:
    """The instructions at the end of a build that give the image more labels."""
    from storagedrivers.dockerfile.instructions import Instruction

    return [
        Instruction("LABEL", arguments=(name, value), text=f"{name}={value}", expanded=True)
        for name, value in sorted(labels.items())
    ]


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    """Set it, or leave it out where it is empty: null, [], {} and "" all mean nothing."""
    if value or (key == "StopTimeout" and value == 0):
        config[key] = value
    else:
        config.pop(key, None)


def command(config: Mapping[str, Any], instruction: Instruction) -> list[str]:
    """What CMD, ENTRYPOINT or RUN has to run."""
    words = instruction.arguments
    if instruction.exec_form:
        return [*words]
    return [*shell(config), *([" ".join(words)] if words else ())]


def _cmd(config: dict[str, Any], instruction: Instruction) -> None:
    _set(config, "Cmd", command(config, instruction))
    config.pop("ArgsEscaped", None)
    if isinstance(config, Config) and instruction.arguments:
        config.has_command = True


def _entrypoint(config: dict[str, Any], instruction: Instruction) -> None:
    _set(config, "Entrypoint", entrypoint(config, instruction))
    config.pop("ArgsEscaped", None)
    if not (isinstance(config, Config) and config.has_command):
        config.pop("Cmd", None)


def entrypoint(config: Mapping[str, Any], instruction: Instruction) -> list[str] | None:
    """What ENTRYPOINT has to run; nothing at all where it names nothing."""
    return command(config, instruction) if instruction.arguments else None


def pairs(instruction: Instruction) -> list[tuple[str, str]]:
    """Names and values of ENV and LABEL."""
    words = instruction.arguments
    return list(zip(words[::2], words[1::2], strict=True))


def _env(config: dict[str, Any], instruction: Instruction) -> None:
    env = list(config.get("Env") or ())
    names = [one.partition("=")[0] for one in env]
    for name, value in pairs(instruction):
        if name in names:
            env[names.index(name)] = f"{name}={value}"
        else:
            env.append(f"{name}={value}")
            names.append(name)
    config["Env"] = env


def _label(config: dict[str, Any], instruction: Instruction) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(pairs(instruction))}


def _user(config: dict[str, Any], instruction: Instruction) -> None:
    _set(config, "User", instruction.arguments[0])


def _workdir(config: dict[str, Any], instruction: Instruction) -> None:
    path = instruction.arguments[0]
    if not path:
        raise ValueError("cannot normalize nothing")
    if not path.startswith("/"):  # any other one stays as it is, with all its dots
        path = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "", path))
        path = "/" + path.lstrip("/")
    config["WorkingDir"] = path


def _expose(config: dict[str, Any], instruction: Instruction) -> None:
    from storagedrivers.dockerfile.ports import exposed

    ports = dict(config.get("ExposedPorts") or {})
    for word in instruction.arguments:
        ports.update((port, {}) for port in exposed(word))
    _set(config, "ExposedPorts", ports)


def volumes(instruction: Instruction) -> list[str]:
    """The paths that VOLUME names.

    Raises:
        ValueError: one of them is empty.
    """
    paths = [path.strip() for path in instruction.arguments]
    if not all(paths):
        raise ValueError("VOLUME specified can not be an empty string")
    return paths


def _volume(config: dict[str, Any], instruction: Instruction) -> None:
    config["Volumes"] = {**(config.get("Volumes") or {}), **{p: {} for p in volumes(instruction)}}


def _stopsignal(config: dict[str, Any], instruction: Instruction) -> None:
    signal = instruction.arguments[0]
    if not _is_signal(signal):
        raise ValueError(f"Invalid signal: {signal}")
    config["StopSignal"] = signal


_SIGNALS = frozenset(
    (
        *("ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT"),
        *("KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM"),
        *("TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU"),
        *("XFSZ", "RTMIN", "RTMAX"),
    )
)
_REAL_TIME = {"RTMIN+": 15, "RTMAX-": 14}


def _is_signal(text: str) -> bool:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text) != 0
    name = text.upper().removeprefix("SIG")
    most, number = _REAL_TIME.get(name[:6], 0), name[6:]
    return name in _SIGNALS or number in map(str, range(1, most + 1))


def _healthcheck(config: dict[str, Any], instruction: Instruction) -> None:
    from storagedrivers.dockerfile import healthchecks

    check = healthchecks.parse(instruction)
    config["Healthcheck"] = healthchecks.inherited(check, config.get("Healthcheck"))


def _shell(config: dict[str, Any], instruction: Instruction) -> None:
    config["Shell"] = [*instruction.arguments]


def _onbuild(config: dict[str, Any], instruction: Instruction) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), *instruction.arguments]


def _maintainer(config: dict[str, Any], instruction: Instruction) -> None:
    """Nothing: who made an image is not in there."""


_CHANGES: dict[str, Callable[[dict[str, Any], Instruction], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
CHANGES = tuple(word for word in _CHANGES if word not in ("MAINTAINER", "SHELL"))
