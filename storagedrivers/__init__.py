"""Finds the best way to stack filesystem layers on a host, says why, and keeps layers, images and
containers with it.

The public names; importing the package imports none of their modules before they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.driver import StorageDriver
    from storagedrivers.errors import StorageDriversError
    from storagedrivers.host import HostFacts, read_host
    from storagedrivers.model import Capability, Changeset, Mount, ProbeResult, Reason, Usage
    from storagedrivers.policy import Policy, load_policies
    from storagedrivers.registry import Registry
    from storagedrivers.runtime import Runtime
    from storagedrivers.selector import Selection, prior_drivers, probe_all, select
    from storagedrivers.storage import Storage
    from storagedrivers.stores.containers import Container, ContainerStore
    from storagedrivers.stores.image_records import Image
    from storagedrivers.stores.images import ImageStore
    from storagedrivers.stores.layers import Layer, LayerStore

__version__ = "0.1.0"

_HOMES = {
    "Capability": "model",
    "Changeset": "model",
    "Container": "stores.containers",
    "ContainerStore": "stores.containers",
    "HostFacts": "host",
    "Image": "stores.image_records",
    "ImageStore": "stores.images",
    "Layer": "stores.layers",
    "LayerStore": "stores.layers",
    "Mount": "model",
    "Policy": "policy",
    "ProbeResult": "model",
    "Reason": "model",
    "Registry": "registry",
    "Runtime": "runtime",
    "Selection": "selector",
    "Storage": "storage",
    "StorageConfig": "config",
    "StorageDriver": "driver",
    "StorageDriversError": "errors",
    "Usage": "model",
    "load_policies": "policy",
    "prior_drivers": "selector",
    "probe_all": "selector",
    "read_host": "host",
    "select": "selector",
}

__all__ = [
    "Capability",
    "Changeset",
    "Container",
    "ContainerStore",
    "HostFacts",
    "Image",
    "ImageStore",
    "Layer",
    "LayerStore",
    "Mount",
    "Policy",
    "ProbeResult",
    "Reason",
    "Registry",
    "Runtime",
    "Selection",
    "Storage",
    "StorageConfig",
    "StorageDriver",
    "StorageDriversError",
    "Usage",
    "load_policies",
    "prior_drivers",
    "probe_all",
    "read_host",
    "select",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"storagedrivers.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'storagedrivers' has no attribute {name!r}")
