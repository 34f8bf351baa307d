"""Images as an archive or a layout holds them: what is to be loaded, before anything is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from storagedrivers.errors import (
    InvalidReferenceError,
    MalformedImageError,
    UnsupportedImageError,
)
from storagedrivers.oci import reference
from storagedrivers.oci.config import ImageConfig
from storagedrivers.oci.documents import shown
from storagedrivers.oci.files import Files, Place
from storagedrivers.oci.manifest import Manifest
from storagedrivers.oci.platforms import Platform, fits
from storagedrivers.oci.reference import Reference

_NAMED = 20  # how many of a longer list an error names


class FoundLayer(NamedTuple):
    """A layer of an image in an archive.

    Attributes:
        name: of its file.
        place: where that is.
        diff_id: what the config says of it; None in the oldest archives.
        digest: what the manifest says of the file; None where there is none.
    """

    name: str
    place: Place
    diff_id: str | None
    digest: str | None


class Found(NamedTuple):
    """An image in an archive.

    Attributes:
        config: its config.
        manifest: its manifest; None where the archive has none.
        layers: the bottom one first.
        names: that the archive gives it.
    """

    config: ImageConfig
    manifest: Manifest | None
    layers: tuple[FoundLayer, ...]
    names: tuple[Reference, ...]


def find_images(files: Files, wanted: Platform) -> list[Found]:
    """The images in an archive or a layout that fit the platform.

    Raises:
        MalformedImageError: it is neither, or something in it is no good; names the file.
        UnsupportedImageError: nothing in it fits.
    """
    if files.find("index.json") is not None:
        from storagedrivers.oci.layout import read_layout

        return read_layout(files, wanted)
    if files.find("manifest.json") is not None:
        from storagedrivers.oci.docker import read_docker_archive

        return read_docker_archive(files, wanted)
    if files.find("repositories") is not None:
        from storagedrivers.oci.oldest import read_oldest_archive

        return read_oldest_archive(files, wanted)
    raise MalformedImageError(
        f"{files.name} holds no image: there is no index.json and no manifest.json in it",
        resolution="a root filesystem's tar becomes an image with: storagedrivers image import",
    )


def check_platform(config: ImageConfig, wanted: Platform, where: str) -> None:
    """Check that an image is for the platform.

    Raises:
        UnsupportedImageError: it is for another one.
    """
    found = Platform(config.os, config.architecture, config.variant)
    if not fits(wanted, found):
        raise other_platforms(where, wanted, [found])


def other_platforms(
    where: str, wanted: Platform, found: Iterable[Platform | None]
) -> UnsupportedImageError:
    """The error for an image that is for other platforms only."""
    names = sorted({shown(str(one)) for one in found if one is not None})[:_NAMED]
    return UnsupportedImageError(
        f"the image in {where} is for {', '.join(names) or 'no platform'} and not for {wanted}",
        resolution=f"name one that is there: --platform {names[0]}" if names else None,
    )


def only_fitting(tried: Iterable[Found | UnsupportedImageError], where: str) -> list[Found]:
    """The images that fit.

    Args:
        tried: each image, or why it does not fit.
        where: the file that lists them, for an error.

    Raises:
        UnsupportedImageError: none does; the first one's.
        MalformedImageError: there is none at all.
    """
    found: list[Found] = []
    others: list[UnsupportedImageError] = []
    for one in tried:
        if isinstance(one, Found):
            found.append(one)
        else:
            others.append(one)
    if others and not found:
        raise others[0]
    if not found:
        raise MalformedImageError(f"{where} lists no image")
    return found


def parse_name(text: str, where: str) -> Reference | None:
    """A name that an archive gives; None for Docker's ``<none>:<none>``.

    Raises:
        MalformedImageError: it is none.
    """
    if text in ("", "<none>:<none>"):
        return None
    try:
        found = reference.parse(text)
    except InvalidReferenceError as error:
        raise MalformedImageError(f"{where}: {error.brief}", resolution=error.resolution) from error
    return None if found.tag is None else found._replace(digest=None)
