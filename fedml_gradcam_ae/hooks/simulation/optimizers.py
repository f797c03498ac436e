"""Which of FedML's federated optimizers defenses and attacks act with, in each simulator and in cross-silo runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedml_gradcam_ae.contract.settings import SettingsError, unknown

# Optimizers whose server takes the mean of the uploads for the new global model, unchanged.
MEAN_IS_GLOBAL = ("FedAvg", "FedProx", "FedAvg_seq")

SUM_ALONE = "secure aggregation shows the server only the sum of the uploads, and no single one that could be judged"
# By backend of a simulation, and for cross-silo runs, each optimizer that FedML 0.9.6 has there: None if defenses and
# attacks act with it, else why they are refused.
TABLE: Mapping[str, Mapping[str, str | None]] = {
    "sp": {
        "FedAvg": None,
        "FedOpt": None,
        "FedProx": None,
        "FedNova": None,
        "FedDyn": None,
        "SCAFFOLD": None,
        "Mime": None,
        "HierarchicalFL": None,
        "turbo_aggregate": SUM_ALONE,
        "classical_vertical": "in vertical federated learning the parties hold different features of the same samples "
        "and upload no models that could be compared. FedML runs its FedAvg under this name: write FedAvg",
    },
    "MPI": {
        "FedAvg": None,
        "FedProx": None,
        "FedOpt": None,
        "FedNova": None,
        "FedAvg_seq": None,
        "FedOpt_seq": None,
        "Async_FedAvg": "FedML's own stops at its first client, which formats a text as a number; its server calls a "
        "method that it lacks",
        "FedGAN": "a client uploads two networks, a generator and a discriminator, and a defense judges models of one",
        "FedNAS": "a client uploads parameters of the architecture beside its weights, and no defense judges them",
        "FedGKT": "clients upload features and logits of their images, and no models",
        "split_nn": "clients upload activations of their images, and no models",
        "decentralized_fl": "FedML's own is a demonstration of messages between neighbors: it trains nothing",
        "base_framework": "FedML's own is a demonstration of messages: it trains nothing",
        "classical_vertical": "FedML's own does nothing under this name",
        "FedSeg": "FedML's own does nothing under this name",
    },
    "cross_silo": {"FedAvg": None, "LSA": SUM_ALONE, "SA": SUM_ALONE},
}


def check_known(args: Any) -> None:
    """Reject an optimizer that FedML does not have there, at which it stops with `Exception("Exception")`.

    Args:
        args: FedML's args.

    Raises:
        SettingsError: with the names of the optimizers that it has.
    """
    optimizer, place = getattr(args, "federated_optimizer", None), _place(args)
    if optimizer is not None and place in TABLE and optimizer not in TABLE[place]:
        where = "cross-silo server" if place == "cross_silo" else f"simulator with backend: {place}"
        raise SettingsError(
            unknown(f"federated_optimizer {optimizer!r} of FedML's {where}", str(optimizer), TABLE[place])
        )


def _place(args: Any) -> str:
    """Return a key of `TABLE`, or the name of a path that is not in it."""
    path = str(getattr(args, "training_type", None))
    return str(getattr(args, "backend", None)) if path == "simulation" else path


def check_network(args: Any, at: Sequence[str]) -> None:
    """Reject a network that FedML's optimizer cannot train.

    Args:
        args: FedML's args.
        at: names of the tensors at which FedML's code stops.

    Raises:
        SettingsError: if there is one.
    """
    if at:
        raise SettingsError(
            f"federated_optimizer: {args.federated_optimizer}: FedML's own stops at tensors such as {at[0]!r}; use a "
            "network without BatchNorm (with GroupNorm, for instance), or another optimizer."
        )


def check_honored(args: Any, key: str) -> None:
    """Reject a defense or an attack that the optimizer would ignore.

    Args:
        args: FedML's args.
        key: the key that turned it on, such as `enable_defense`.

    Raises:
        SettingsError: with the reason.
    """
    optimizer, here = getattr(args, "federated_optimizer", None), TABLE.get(_place(args), {"FedAvg": None})
    if optimizer is None:
        raise SettingsError(f"federated_optimizer is missing: without it FedML trains nothing that {key} could act on.")
    reason = here.get(str(optimizer), "")
    if reason is None:
        return
    acting = ", ".join(name for name, refused in here.items() if refused is None)
    why = f" ({reason})" if reason else ""
    raise SettingsError(f"federated_optimizer: {optimizer} would ignore {key} here{why}; honored by: {acting}.")
