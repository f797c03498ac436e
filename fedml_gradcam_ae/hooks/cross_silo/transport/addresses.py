"""Where each process listens: the table of the configuration, and what clients that it does not list have said."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from fedml.core.distributed.communication.grpc.grpc_comm_manager import GRPCMapping

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9.])?")
SCOPE = re.compile(r"[A-Za-z0-9._-]+")  # the interface of an IPv6 address, after its %


def is_host(text: str) -> bool:
    """Whether a text is an address or the name of a machine, and nothing else that gRPC would open.

    Example:
        >>> [is_host(text) for text in ("192.0.2.7", "::1", "silo-3.example.org", "unix:/run/x", "")]
        [True, True, True, False, False]
    """
    _, percent, scope = text.partition("%")
    if percent and not SCOPE.fullmatch(scope):
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return HOST.fullmatch(text) is not None
    return True


class Addresses:
    """The rows of the table, which nothing replaces, and the rows learned from messages.

    Args:
        rows: by id; rows that are learned are added to it.
    """

    def __init__(self, rows: dict[int, Any]) -> None:
        self._rows, self._listed = rows, frozenset(rows)

    def rank(self, id: int) -> int:
        """The rank of a process; one that the table does not list is called by its rank."""
        return int(self._rows[id].rank) if id in self._rows else id

    def ids(self, rank: int) -> set[int]:
        """All ids of a rank."""
        return {rank} | {id for id, row in self._rows.items() if int(row.rank) == rank}

    def target(self, id: int) -> str:
        """Host and port.

        Raises:
            LookupError: if they are not known.
        """
        if id not in self._rows:
            raise LookupError(f"no address of {id} is known: neither the table of addresses nor a message holds one")
        row = self._rows[id]
        return join(row.ingress_ip or row.grpc_server_ip, row.grpc_server_port)

    def learn(self, id: int, parameters: Mapping[str, Any], again: bool) -> None:
        """Keep the address in a message of a client that the table does not list.

        Args:
            id: the client.
            parameters: of the message, checked.
            again: whether a later address replaces an earlier one.
        """
        host, port = parameters.get("sender_ip"), parameters.get("sender_port")
        if host is not None and port is not None and id not in self._listed and (again or id not in self._rows):
            self._rows[id] = GRPCMapping(id, id, host, port, host)


def join(host: str, port: int) -> str:
    """Host and port as gRPC takes them.

    Example:
        >>> join("::1", 8890), join("silo", 8890)
        ('[::1]:8890', 'silo:8890')
    """
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
