"""Message parameters that the plug-in adds to FedML's own, between its server and its clients.

FedML's plain clients neither send nor read these parameters.
"""

from __future__ import annotations

from typing import Any

ROUND = "round_number"  # With a model: the round that it starts. With an upload: the round that it answers.
ROUNDS = "rounds"  # With a model: the run's number of rounds. A model of a later round is the final one.
PROCESS = "client_process"  # With a status: a name of the client's process, which changes when it is restarted.

LONGEST_NAME = 64  # Maximum length of a process name in characters.


def whole_number(value: Any) -> int | None:
    """Return an int from 1 to 2**31 - 1 unchanged, and None for anything else.

    Example:
        >>> whole_number(3), whole_number(0), whole_number("3"), whole_number(True)
        (3, None, None, None)
    """
    return value if type(value) is int and 1 <= value < 2**31 else None


def process_name(value: Any) -> str | None:
    """Return a process name of 1 to `LONGEST_NAME` characters unchanged, and None for anything else."""
    return value if type(value) is str and 0 < len(value) <= LONGEST_NAME else None
