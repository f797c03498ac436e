"""Patches of the single-process simulator (`backend: sp`), which calls neither attacker nor defender itself."""

from __future__ import annotations

import fedml.simulation.sp.fedavg
import fedml.simulation.sp.feddyn.feddyn_trainer
import fedml.simulation.sp.fednova.fednova_trainer
import fedml.simulation.sp.fedopt.fedopt_api
import fedml.simulation.sp.fedprox.fedprox_trainer
import fedml.simulation.sp.hierarchical_fl.trainer
import fedml.simulation.sp.mime.mime_trainer
import fedml.simulation.sp.scaffold.scaffold_trainer
from fedml.simulation.sp.fedavg.fedavg_api import FedAvgAPI
from fedml.simulation.sp.fedprox.fedprox_trainer import FedProxTrainer

from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation.feddyn import HookedFedDynTrainer
from fedml_gradcam_ae.hooks.simulation.fednova import HookedFedNovaTrainer
from fedml_gradcam_ae.hooks.simulation.fedopt import HookedFedOptAPI
from fedml_gradcam_ae.hooks.simulation.hierarchical import HookedHierarchicalTrainer
from fedml_gradcam_ae.hooks.simulation.judged_trainer import MeanIsGlobal
from fedml_gradcam_ae.hooks.simulation.mime import HookedMimeTrainer
from fedml_gradcam_ae.hooks.simulation.scaffold import HookedScaffoldTrainer

_ALL = "neither attacker nor defender is called, and unusable uploads are averaged"
_START = "each client starts where the last one stopped"


def patch(patches: Patches) -> None:
    """Replace the trainers where the simulator looks them up when it makes a runner."""
    sp = fedml.simulation.sp
    patches.replace(
        sp.fedavg,
        "FedAvgAPI",
        HookedFedAvgAPI,
        mends="the single-process simulator calls neither attacker nor defender, averages unusable uploads,"
        " and cuts off the decimals of means of whole numbers; in round 0 each client starts where "
        "the last one stopped",
    )
    for module, name, hooked, mends in (
        (sp.fedprox.fedprox_trainer, "FedProxTrainer", HookedFedProxTrainer, f"{_ALL}; in round 0 {_START}"),
        (
            sp.fedopt.fedopt_api,
            "FedOptAPI",
            HookedFedOptAPI,
            f"{_ALL}; on a CPU {_START}, and the pseudo-gradient begins at the last client's model; test results reach "
            "no listener, and testing needs a key `ci`",
        ),
        (
            sp.fednova.fednova_trainer,
            "FedNovaTrainer",
            HookedFedNovaTrainer,
            f"{_ALL}; test results reach no listener, and testing needs a key `ci`",
        ),
        (
            sp.feddyn.feddyn_trainer,
            "FedDynTrainer",
            HookedFedDynTrainer,
            f"{_ALL}; in round 0 {_START}; the server's state is relative to the last client's model",
        ),
        (
            sp.scaffold.scaffold_trainer,
            "ScaffoldTrainer",
            HookedScaffoldTrainer,
            f"{_ALL}; on a CPU {_START}; only the last client's upload counts; the clients' control variates stay 0",
        ),
        (
            sp.mime.mime_trainer,
            "MimeTrainer",
            HookedMimeTrainer,
            f"{_ALL}; on a CPU {_START}; BatchNorm ends the run with a KeyError",
        ),
        (
            sp.hierarchical_fl.trainer,
            "HierarchicalTrainer",
            HookedHierarchicalTrainer,
            f"{_ALL}; in round 0 {_START}",
        ),
    ):
        patches.replace(module, name, hooked, mends=mends)


class HookedFedAvgAPI(MeanIsGlobal, FedAvgAPI):  # type: ignore[misc]  # fedml has no types
    """FedAvgAPI in which attacks and defenses act."""


class HookedFedProxTrainer(MeanIsGlobal, FedProxTrainer):  # type: ignore[misc]
    """FedProxTrainer in which attacks and defenses act."""
