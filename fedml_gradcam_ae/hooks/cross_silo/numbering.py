"""What messages between a server and clients of the plug-in say beside FedML's own parameters.

FedML's plain clients neither send nor read any of it.
"""

from __future__ import annotations

from typing import Any

ROUND = "round_number"  # of a model: the round that it starts; of an upload: the round that it answers
ROUNDS = "rounds"  # of a model: how many the run has; a model of a later round is the final one
PROCESS = "client_process"  # of a status: names the process that sends it, as long as it lives

LONGEST_NAME = 64


def whole_number(value: Any) -> int | None:
    """A number from 1 on, or None for anything else."""
    return value if type(value) is int and 1 <= value < 2**31 else None


def process_name(value: Any) -> str | None:
    """A client's name for its process, or None for anything else."""
    return value if type(value) is str and 0 < len(value) <= LONGEST_NAME else None
