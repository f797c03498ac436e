"""Patches of the MPI simulator (`backend: MPI`): a server on rank 0, clients on every other rank."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import fedml
from fedml.core.distributed.communication.mpi.mpi_receive_thread import MPIReceiveThread
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.simulation.simulator import SimulatorMPI

from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import ranks
from fedml_gradcam_ae.hooks.simulation.mpi_routes import SEVERAL_PER_RANK, acts, route


def patch(patches: Patches) -> None:
    """Replace the parts of the MPI simulator; mpi4py is not needed until a runner is made."""
    stock_start, stock_simulate, stock_receive = fedml._init_simulation_mpi, SimulatorMPI.__init__, MPIReceiveThread.run

    def start(args: Any) -> Any:
        ranks.check_mpi()
        stock_start(args)
        ranks.stop_all_on_uncaught_errors(patches)
        _check_world(args)
        return args

    patches.replace(
        fedml,
        "_init_simulation_mpi",
        start,
        mends="with too few ranks some clients never take part; an error in a script leaves the other ranks waiting",
    )

    def simulate(self: Any, args: Any, *more: Any, **options: Any) -> None:
        try:
            with Patches() as routed:
                route(routed, args)
                FedMLAttacker.get_instance().init(args)
                FedMLDefender.get_instance().init(args)
                with aggregation.run_listeners(args) if args.process_id == 0 else nullcontext():
                    stock_simulate(self, args, *more, **options)
        except Exception as error:
            ranks.stop_all(error)
            raise

    patches.replace(
        SimulatorMPI,
        "__init__",
        simulate,
        mends="an error on one rank leaves the other ranks waiting; listeners get no report of a round",
    )

    def receive(self: Any) -> None:
        try:
            stock_receive(self)
        except Exception as error:
            ranks.stop_all(error)
            raise

    patches.replace(MPIReceiveThread, "run", receive, mends="a message that cannot be read leaves every rank waiting")


def _check_world(args: Any) -> None:
    """Check that each client of a round has a rank; FedML would leave out clients without one."""
    if acts(args) and args.federated_optimizer not in SEVERAL_PER_RANK:
        ranks.check_world(int(args.client_num_per_round), args.worker_num)
