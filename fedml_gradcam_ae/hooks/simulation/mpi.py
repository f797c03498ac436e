"""Patches of the MPI simulator (`backend: MPI`): a server on rank 0, clients on every other rank."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import fedml
from fedml.core.distributed.communication.mpi.mpi_receive_thread import MPIReceiveThread
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.simulation.simulator import SimulatorMPI

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import ranks
from fedml_gradcam_ae.hooks.simulation.mpi_routes import SEVERAL_PER_RANK, acts, route


def patch(patches: Patches) -> None:
    """Replace the parts of the MPI simulator; mpi4py is not needed until a runner is made."""
    stock_start, stock_simulate, stock_receive = fedml._init_simulation_mpi, SimulatorMPI.__init__, MPIReceiveThread.run

    def start(args: Any) -> Any:
        _check_mpi()
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


def _check_mpi() -> None:
    try:
        import mpi4py.MPI  # noqa: F401
    except (ImportError, RuntimeError) as error:  # no mpi4py, or no MPI that it could load
        raise SettingsError(
            f"backend: MPI needs mpi4py and an MPI that it can load, found: {error}; "
            "for example: pip install mpi4py mpich."
        ) from None


def _check_world(args: Any) -> None:
    """Check that each client of a round has a rank; FedML would leave out clients without one."""
    needed = int(args.client_num_per_round) + 1
    if acts(args) and args.worker_num != needed and args.federated_optimizer not in SEVERAL_PER_RANK:
        raise SettingsError(
            f"client_num_per_round: {needed - 1} needs {needed} MPI ranks, one for the server and one for each client, "
            f"found {args.worker_num}; start it with mpirun -np {needed}."
        )
