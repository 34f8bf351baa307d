"""Names of signals, as Docker takes them."""

from __future__ import annotations

import re
import signal

from storagedrivers.errors import ContainerError

_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?")


def signal_number(words: int | str) -> int:
    """The number of ``SIGTERM``, ``TERM``, ``15``, ``SIGRTMIN+3``.

    Raises:
        ContainerError: there is no such signal.
    """
    text = str(words).strip().upper().removeprefix("SIG")
    if found := _REAL_TIME.fullmatch(text):
        base = signal.SIGRTMIN if found[1] == "MIN" else signal.SIGRTMAX
        number = base + int(f"{found[2] or '+'}{found[3] or 0}")
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return int(number)
    elif re.fullmatch(r"[0-9]{1,3}", text) and 0 < int(text) < signal.NSIG:
        return int(text)
    elif (number := getattr(signal, f"SIG{text}", 0)) and isinstance(number, signal.Signals):
        return int(number)
    raise ContainerError(
        f"{words!r} is no signal", resolution="name one as kill -l does: SIGTERM, TERM or 15"
    )
