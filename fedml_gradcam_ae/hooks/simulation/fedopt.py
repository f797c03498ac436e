"""FedOpt in the single-process simulator: the judged mean becomes the pseudo-gradient of the server's optimizer.

Reference: Reddi et al., "Adaptive Federated Optimization", ICLR 2021.
"""

from __future__ import annotations

from typing import Any

from fedml.simulation.sp.fedopt.fedopt_api import FedOptAPI
from typing_extensions import override

from fedml_gradcam_ae.hooks.simulation.judged_trainer import JudgedTrainer
from fedml_gradcam_ae.hooks.simulation.measuring import measuring


class HookedFedOptAPI(JudgedTrainer, FedOptAPI):  # type: ignore[misc]  # fedml has no types
    """FedOptAPI in which attacks and defenses act."""

    def _set_model_global_grads(self, new_state: Any) -> None:
        super()._set_model_global_grads(new_state)
        self.hold_still()

    @override
    def _local_test_on_all_clients(self, round_idx: int) -> None:
        with measuring(self.client_list[0], self.args, round_idx):
            super()._local_test_on_all_clients(round_idx)
