"""Which classes a run over MPI uses, by optimizer, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedml.ml.trainer.fedprox_trainer import FedProxModelTrainer
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from fedml.simulation.mpi.fedavg import FedAvgAPI
from fedml.simulation.mpi.fedavg_seq import FedAvgSeqAPI
from fedml.simulation.mpi.fednova import FedNovaAPI

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import mpi_clients, mpi_server
from fedml_gradcam_ae.hooks.simulation.mpi_fednova import DividesNoWholeNumbers, HookedFedNovaTrainer

FEDNOVA_KEYS = ("gmf", "mu", "momentum", "dampening", "weight_decay", "nesterov")
WAITS = "with `comm_round: 1` the clients wait forever for a second round; a needless warning on every start"
NO_LABELS = "`label_flipping` never reaches the training data"
IGNORED = "neither attacks nor defenses act"
FEDAVG, SEQ = "fedml.simulation.mpi.fedavg.FedAvgAPI", "fedml.simulation.mpi.fedavg_seq.FedAvgSeqAPI"
# What is replaced while a run lasts, and what that mends.
REPLACED = {
    f"{FEDAVG}.FedAVGAggregator": "calls a method that most defenses lack; gives attacks no global model; averages "
    "unusable uploads, and cuts off the decimals of means of whole numbers",
    f"{FEDAVG}.FedAVGTrainer": NO_LABELS,
    f"{FEDAVG}.FedAVGClientManager": WAITS,
    f"{FEDAVG}.FedAVGServerManager": "a needless warning on every start",
    f"{FEDAVG}.create_model_trainer": "FedProx has no proximal term",
    "fedml.simulation.mpi.fedprox.FedProxAPI.FedML_FedProx_distributed": f"stops at its first test; {IGNORED}",
    "fedml.simulation.mpi.fedopt.FedOptAPI.FedML_FedOpt_distributed": "stops at its first test, and at an optimizer "
    f"without momentum; {IGNORED}",
    f"{SEQ}.FedAVGAggregator": IGNORED,
    f"{SEQ}.FedAVGTrainer": NO_LABELS,
    f"{SEQ}.FedAVGClientManager": f"adds its clients' models up; {WAITS}",
    f"{SEQ}.FedAVGServerManager": "a needless warning on every start",
    f"{SEQ}.create_model_trainer": "FedNova's clients cannot count batches",
    "fedml.simulation.mpi.fedopt_seq.FedOptSeqAPI.FedML_FedOptSeq_distributed": IGNORED,
    "fedml.simulation.mpi.fednova.FedNovaAPI.FedML_FedNova_distributed": f"{IGNORED}; weighs clients by their shares "
    "of all clients' samples",
}
SEVERAL_PER_RANK = ("FedAvg_seq", "FedOpt_seq", "FedNova")  # optimizers with which one rank trains several clients


def acts(args: Any) -> bool:
    """Return whether a defense or an attack is on.

    Args:
        args: FedML's args.
    """
    return bool(getattr(args, "enable_defense", False) or getattr(args, "enable_attack", False))


def route(patches: Patches, args: Any) -> None:
    """Replace FedML's classes of one run by those in which attacks and defenses act.

    Optimizers for which there are none run as FedML's own, and so do those with several clients per rank if neither
    acts: the ranks add their clients' models up then. MPI has been started: FedML's modules of FedProx and FedOpt start
    it when they are imported.

    Args:
        patches: the list that restores FedML's classes after the run.
        args: FedML's args.

    Raises:
        SettingsError: if a key of the optimizer is missing.
    """
    optimizer = str(getattr(args, "federated_optimizer", None))
    if optimizer in ROUTES and (acts(args) or optimizer not in SEVERAL_PER_RANK):
        ROUTES[optimizer](patches, args)


def _fedavg(patches: Patches, _args: Any, aggregator: type[Any] = mpi_server.HookedFedAVGAggregator) -> None:
    own = {
        "FedAVGAggregator": aggregator,
        "FedAVGTrainer": mpi_clients.HookedFedAVGTrainer,
        "FedAVGClientManager": mpi_clients.HookedFedAVGClientManager,
        "FedAVGServerManager": mpi_clients.HookedFedAVGServerManager,
    }
    _replace(patches, FedAvgAPI, own)


def _fedprox(patches: Patches, args: Any) -> None:
    """Run FedProx as FedAvg whose clients have the proximal term, if `fedprox_mu` is given."""
    from fedml.simulation.mpi.fedprox import FedProxAPI

    _fedavg(patches, args, mpi_server.HookedFedProxAggregator)
    stock_trainer = FedAvgAPI.create_model_trainer

    def create(model: Any, args: Any) -> Any:
        trainer = stock_trainer(model, args)
        proximal = type(trainer) is ModelTrainerCLS and getattr(args, "fedprox_mu", None) is not None
        return FedProxModelTrainer(model, args) if proximal else trainer

    _replace(patches, FedAvgAPI, {"create_model_trainer": create})
    _replace(patches, FedProxAPI, {"FedML_FedProx_distributed": FedAvgAPI.FedML_FedAvg_distributed})


def _fedopt(patches: Patches, args: Any) -> None:
    from fedml.simulation.mpi.fedopt import FedOptAPI

    _fedavg(patches, args, mpi_server.HookedFedOptAggregator)
    _replace(patches, FedOptAPI, {"FedML_FedOpt_distributed": FedAvgAPI.FedML_FedAvg_distributed})


def _fedavg_seq(
    patches: Patches,
    _args: Any,
    aggregator: type[Any] = mpi_server.HookedFedAvgSeqAggregator,
    trainer: type[Any] = mpi_clients.HookedFedAVGTrainer,
) -> None:
    """Have ranks that train several clients upload each client's model."""
    own = {
        "FedAVGAggregator": aggregator,
        "FedAVGTrainer": trainer,
        "FedAVGClientManager": mpi_clients.HookedFedAvgSeqClientManager,
        "FedAVGServerManager": mpi_clients.HookedFedAvgSeqServerManager,
    }
    _replace(patches, FedAvgSeqAPI, own)


def _fedopt_seq(patches: Patches, args: Any) -> None:
    from fedml.simulation.mpi.fedopt_seq import FedOptSeqAPI

    _fedavg_seq(patches, args, mpi_server.HookedFedOptSeqAggregator)
    _replace(patches, FedOptSeqAPI, {"FedML_FedOptSeq_distributed": FedAvgSeqAPI.FedML_FedAvgSeq_distributed})


def _fednova(patches: Patches, args: Any) -> None:
    """Run FedNova as FedAvg_seq whose clients upload normalized models."""
    missing = [key for key in FEDNOVA_KEYS if not hasattr(args, key)]
    if missing:
        raise SettingsError(
            f"train_args: FedML's FedNova needs {', '.join(missing)}: give each, 0 or false to do without."
        )
    _fedavg_seq(patches, args, mpi_server.HookedFedNovaAggregator, HookedFedNovaTrainer)
    _replace(patches, FedAvgSeqAPI, {"create_model_trainer": DividesNoWholeNumbers})
    _replace(patches, FedNovaAPI, {"FedML_FedNova_distributed": FedAvgSeqAPI.FedML_FedAvgSeq_distributed})


def _replace(patches: Patches, api: Any, own: Mapping[str, Any]) -> None:
    for name, value in own.items():
        patches.replace(api, name, value, mends=REPLACED[f"{api.__name__}.{name}"])


ROUTES: Mapping[str, Callable[[Patches, Any], object]] = {
    "FedAvg": _fedavg,
    "FedProx": _fedprox,
    "FedOpt": _fedopt,
    "FedAvg_seq": _fedavg_seq,
    "FedOpt_seq": _fedopt_seq,
    "FedNova": _fednova,
}
