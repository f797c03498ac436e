"""Addresses of all processes: the table of the configuration, and addresses learned from clients it does not list."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9.])?")
SCOPE = re.compile(r"[A-Za-z0-9._-]+")  # The network interface in an IPv6 address, after the %.


def is_host(text: str) -> bool:
    """Return whether a text is an IP address or a host name, and not another kind of target that gRPC would open.

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
    """Address table: fixed rows from the configuration, and rows learned from messages.

    Args:
        rows: FedML's GRPCMapping rows by id. Rows that are learned are added to this dict.
    """

    def __init__(self, rows: dict[int, Any]) -> None:
        self._rows, self._listed = rows, frozenset(rows)

    def rank(self, id: int) -> int:
        """Return the rank of a process; the id of a process that the table does not list is its rank."""
        return int(self._rows[id].rank) if id in self._rows else id

    def ids(self, rank: int) -> set[int]:
        """Return all ids of a rank, which include the rank itself."""
        return {rank} | {id for id, row in self._rows.items() if int(row.rank) == rank}

    def target(self, id: int) -> str:
        """Return the host and port of a process, such as "192.0.2.7:8890".

        Raises:
            LookupError: if the address is not known.
        """
        if id not in self._rows:
            raise LookupError(f"no address of {id} is known, from the table of addresses or from a message")
        row = self._rows[id]
        return join(row.ingress_ip or row.grpc_server_ip, row.grpc_server_port)

    def learn(self, id: int, parameters: Mapping[str, Any], again: bool) -> None:
        """Store the address in a message of a client that the configuration's table does not list.

        Args:
            id: the client's id.
            parameters: the checked parameters of the message; `sender_ip` and `sender_port` are the address.
            again: whether a later address replaces an earlier one.
        """
        host, port = parameters.get("sender_ip"), parameters.get("sender_port")
        if host is not None and port is not None and id not in self._listed and (again or id not in self._rows):
            from fedml.core.distributed.communication.grpc.grpc_comm_manager import GRPCMapping  # needs gRPC

            self._rows[id] = GRPCMapping(id, id, host, port, host)


def join(host: str, port: int) -> str:
    """Return host and port as one text in gRPC's form, with an IPv6 address in brackets.

    Args:
        host: the host name or IP address.
        port: the port.

    Example:
        >>> join("::1", 8890), join("silo", 8890)
        ('[::1]:8890', 'silo:8890')
    """
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
