"""Names of containers: what may be one, and one by chance for those that get none; host names."""

from __future__ import annotations

import os
import re

from storagedrivers.errors import StoreError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LONGEST = 255  # bytes; a file may be called so
_LONGEST_HOSTNAME = 64  # bytes; sethostname(2)

_HOW = (
    "able agile airy amber ample bold brave brisk bright broad calm clean clear cosy crisp dapper"
    " deep eager early easy fair fleet fond fresh full gentle glad golden grand green happy hardy"
    " honest humble ideal jolly keen kind lean level light lively loyal lucid mellow merry mild"
    " modest neat noble patient plain polite proud quick quiet rapid ready rosy round sharp silent"
    " smooth snug sober solid spry steady stout sunny swift tidy trim vivid warm wise witty young"
)
_WHAT = (
    "acorn alder anchor aspen badger barn basin beacon beaver birch bison brook canyon cedar cliff"
    " cloud clover comet coral crane creek delta dune eagle elm ember falcon fern finch fjord fox"
    " garnet geyser glacier grove harbor hare hawk heron hill island ivy jasper kite lake lark"
    " lotus lynx maple marten meadow meteor moss oak orchid osprey otter owl pebble pine plover"
    " pond poplar quartz raven reed reef ridge river robin rowan sable sage seal shore sparrow"
    " spruce stone stork swan thistle tide trout tulip valley walnut willow wren yarrow"
)


def check_name(name: str) -> str:
    """Return *name* if a container may be called so.

    Raises:
        StoreError: it has other characters than Docker lets in, or not 2 to 255 of them.
    """
    if _NAME.fullmatch(name) and len(name) <= _LONGEST:
        return name
    raise StoreError(
        f"{name!r} is no name for a container",
        resolution="use 2 to 255 characters of a-z, A-Z, 0-9, '_', '.' and '-',"
        " the first one a letter or a digit",
    )


def check_hostname(name: str) -> str:
    """Return *name* if a container can have it as its host name.

    It ends up in files with a line for each host, and is the kernel's to take.

    Raises:
        StoreError: it has other characters than a container's name, or not 1 to 64 of them.
    """
    if _NAME.fullmatch(f"{name}-") and len(name) <= _LONGEST_HOSTNAME:
        return name
    raise StoreError(
        f"{name!r} is no host name",
        resolution="use 1 to 64 characters of a-z, A-Z, 0-9, '_', '.' and '-',"
        " the first one a letter or a digit",
    )


def random_name(attempt: int) -> str:
    """A name such as ``brisk_otter``.

    Args:
        attempt: how many were taken already; then numbers make the choice larger.
    """
    number, more = int.from_bytes(os.urandom(4)), int.from_bytes(os.urandom(2))
    how, what = _HOW.split(), _WHAT.split()
    one, other = divmod(number % (len(how) * len(what)), len(what))
    return f"{how[one]}_{what[other]}{more if attempt else ''}"
