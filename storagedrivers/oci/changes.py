"""Changes of a config in a Dockerfile's words, as ``--change`` of commit and import takes them."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from storagedrivers.errors import StoreError, did_you_mean

_SHELL = ["/bin/sh", "-c"]
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?:(:?[-+])([^}]*))?\}|(\w+))")
_PORT = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:/(?:tcp|udp|sctp))?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|us|s)")
_NANOSECONDS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3}


def apply_changes(config: dict[str, Any], lines: Iterable[str]) -> None:
    """Apply each line. An ENTRYPOINT takes the old CMD away, but not one that the lines set.

    Raises:
        StoreError: a line is no change; names it.
    """
    new_command = False
    for line in lines:
        command = config.get("Cmd")
        apply_change(config, line)
        word = line.split(None, 1)[0].upper()
        new_command |= word == "CMD"
        if word == "ENTRYPOINT" and new_command:
            config["Cmd"] = command


def apply_change(config: dict[str, Any], line: str) -> None:
    """Apply one line: ``CMD ["sh"]``, ``ENV A=b``.

    Args:
        config: how to run an image; changed in place.

    Raises:
        StoreError: it is no change; says why.
    """
    word, _, rest = line.strip().partition(" ")
    change = _CHANGES.get(word.upper())
    if change is None:
        raise StoreError(
            f"{line!r} is no change: there is no {word.upper() or 'word in it'}",
            resolution=did_you_mean(word.upper(), _CHANGES)
            or f"changes are {', '.join(sorted(_CHANGES))}",
        )
    if not rest.strip():
        raise _invalid(line, f"{word.upper()} wants something behind it")
    try:
        change(config, rest.strip())
    except ValueError as error:
        raise _invalid(line, str(error)) from error


def _invalid(line: str, why: str) -> StoreError:
    return StoreError(f"{line!r} is no change: {why}", resolution="write it as in a Dockerfile")


def _command(text: str) -> list[str]:
    """The JSON form, or else what the shell is to run."""
    return _json_form(text) or [*_SHELL, text]


def _json_form(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        return None
    return found


def _cmd(config: dict[str, Any], text: str) -> None:
    config["Cmd"] = [] if text == "[]" else _command(text)


def _entrypoint(config: dict[str, Any], text: str) -> None:
    config["Entrypoint"] = None if text == "[]" else _command(text)
    config["Cmd"] = None


def _env(config: dict[str, Any], text: str) -> None:
    values = dict(one.partition("=")[::2] for one in config.get("Env") or [])
    values.update(_pairs(text, values))
    config["Env"] = [f"{name}={value}" for name, value in values.items()]


def _label(config: dict[str, Any], text: str) -> None:
    labels = _pairs(text, _environment(config))
    config["Labels"] = {**(config.get("Labels") or {}), **labels}


def _user(config: dict[str, Any], text: str) -> None:
    config["User"] = _one(config, text)


def _workdir(config: dict[str, Any], text: str) -> None:
    path = posixpath.join("/", config.get("WorkingDir") or "/", _one(config, text))
    config["WorkingDir"] = "/" + posixpath.normpath(path).lstrip("/")


def _stopsignal(config: dict[str, Any], text: str) -> None:
    config["StopSignal"] = _one(config, text)


def _expose(config: dict[str, Any], text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in words(text, _environment(config)):
        port = word.lower()
        if not _PORT.fullmatch(port):
            raise ValueError(f"{word!r} is no port")
        port, slash, protocol = port.partition("/")
        first, _, last = port.partition("-")
        if not 0 < int(first) <= int(last or first) < 1 << 16:
            raise ValueError(f"{word!r} is no port")
        for number in range(int(first), int(last or first) + 1):
            ports[f"{number}/{protocol if slash else 'tcp'}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: dict[str, Any], text: str) -> None:
    paths = _json_form(text) or [*words(text, _environment(config))]
    if not all(path.strip() for path in paths):
        raise ValueError("a volume has a path")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _onbuild(config: dict[str, Any], text: str) -> None:
    if text.split(None, 1)[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise ValueError(f"{text.split(None, 1)[0].upper()} cannot be put off")
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


def _healthcheck(config: dict[str, Any], text: str) -> None:
    check: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option[2:].partition("=")
        text = text.strip()
        key = {"start-period": "StartPeriod", "start-interval": "StartInterval"}.get(
            name, name.capitalize()
        )
        if key not in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
            raise ValueError(f"there is no option --{name}")
        check[key] = int(value) if key == "Retries" else _duration(value)
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE" and not rest:
        check["Test"] = ["NONE"]
    elif kind.upper() == "CMD" and rest.strip():
        listed = _json_form(rest.strip())
        check["Test"] = ["CMD", *listed] if listed else ["CMD-SHELL", rest.strip()]
    else:
        raise ValueError("HEALTHCHECK wants NONE, or CMD and a command")
    config["Healthcheck"] = check


def _duration(text: str) -> int:
    """Nanoseconds of Go's ``1m30s``."""
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        raise ValueError(f"{text!r} is no length of time")
    return round(sum(float(one) * _NANOSECONDS[unit] for one, unit in _DURATION.findall(text)))


def _one(config: dict[str, Any], text: str) -> str:
    found = " ".join(words(text, _environment(config)))
    if not found:
        raise ValueError("nothing is left of it")
    return found


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in config.get("Env") or [])


def _pairs(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """``A=b C="d e"``, or the old ``A everything else``."""
    found = [*words(text, environment)]
    if "=" not in found[0]:
        if len(found) < 2:
            raise ValueError(f"{found[0]!r} has no value")
        return {found[0]: " ".join(found[1:])}
    pairs = [word.partition("=") for word in found]
    for name, equals, value in pairs:
        if not (name and equals):
            raise ValueError(f"{name + equals + value!r} is no NAME=VALUE")
    return {name: value for name, _, value in pairs}


def words(text: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Words as a shell cuts them: quotes, backslashes and variables; nothing else is special.

    Raises:
        ValueError: a quote has no end.
    """
    for word in re.findall(r"""(?:[^\s\\"']|\\.|"(?:[^"\\]|\\.)*"|'[^']*'|\\$|["'].*)+""", text):
        yield _unquoted(word, environment)


_PART = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.?)|([^'"\\]+)|(["'])""", re.DOTALL)


def _unquoted(word: str, environment: Mapping[str, str]) -> str:
    parts = []
    for single, double, escaped, plain, quote in _PART.findall(word):
        if quote:
            raise ValueError(f"a quote has no end in {word!r}")
        if double:
            for piece in re.findall(r"\\.|[^\\]+", double):
                parts.append(piece[1:] if piece in _ESCAPED else _expanded(piece, environment))
        else:
            parts.append(single or escaped or _expanded(plain, environment))
    return "".join(parts)


_ESCAPED = ('\\"', "\\\\", "\\$", "\\`")


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name, operator, other, plain = found.groups()
        have = environment.get(name or plain, "")
        if operator is None:
            return have
        there = bool(have) if operator[0] == ":" else (name in environment)
        if operator[-1] == "-":
            return have if there else other
        return other if there else ""

    return _VARIABLE.sub(value, text)


_CHANGES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
