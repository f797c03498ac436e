"""Which keys FedML itself reads from its configuration: it has no list of them, so its source is searched."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import fedml


@cache
def keys_of_fedml() -> frozenset[str]:
    """Return all names that FedML's source reads as `args.NAME`, `config.NAME` or with `getattr` and `hasattr`.

    This reads FedML's files once, which takes about a second: ask only about a key that is not known otherwise.

    Example:
        >>> {"federated_optimizer", "krum_param_m"} <= keys_of_fedml(), "krum_param_n" in keys_of_fedml()
        (True, False)
    """
    reading = re.compile(rb"""\b(?:args|config)(?:\.|,\s*["'])([A-Za-z]\w*)""")
    found: set[str] = set()
    for path in Path(fedml.__file__).parent.rglob("*.py"):
        found.update(name.decode() for name in reading.findall(path.read_bytes()))
    return frozenset(found)
