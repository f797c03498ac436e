"""FedDyn in the single-process simulator: the judged mean takes the place of the clients' mean.

Reference: Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021. FedML's server averages with
equal weights; with an attack or a defense on, the weights are the defense's or those of the samples, as in FedAvg.
"""

from __future__ import annotations

import copy
from typing import Any

from fedml.simulation.sp.feddyn.feddyn_trainer import FedDynTrainer
from typing_extensions import override

from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.simulation.judged_trainer import JudgedTrainer
from fedml_gradcam_ae.hooks.simulation.optimizers import check_network
from fedml_gradcam_ae.hooks.surroundings import Uploads


class HookedFedDynTrainer(JudgedTrainer, FedDynTrainer):  # type: ignore[misc]  # fedml has no types
    """FedDynTrainer in which attacks and defenses act.

    Raises:
        SettingsError: if the network has tensors that are not trained, at which FedML's FedDyn stops.
    """

    args: Any
    server_state: Any

    def __init__(self, dataset: Any, model: Any, device: Any, args: Any) -> None:
        trained = dict(model.named_parameters())
        check_network(args, [name for name in model.state_dict() if name not in trained])
        super().__init__(dataset, model, device, args)

    @override
    def _aggregate(self, w_locals: Uploads) -> Any:
        """Return n times the mean of n uploads, as FedML's loop expects."""
        before = {name: tensor.clone() for name, tensor in self.aggregator.get_model_params().items()}
        mean = self.judge(w_locals)
        # The loop takes the trainer's model for the global model that the round began with.
        self.model_trainer.set_model_params(before)
        clients, admitted = int(self.args.client_num_per_round), self.round.admitted
        if self.round.report.global_model_stays:
            self._stay(before)
        elif not aggregation.defense_or_attack_active() and admitted is not None:
            usable = [(n, dict(upload)) for n, upload in zip(admitted.samples, admitted.uploads, strict=True)]
            total, share = super(JudgedTrainer, self)._aggregate(usable), clients / len(usable)
            return total if share == 1 else {name: tensor * share for name, tensor in total.items()}
        return {name: tensor * clients for name, tensor in mean.items()}

    def _stay(self, before: Any) -> None:
        """Keep the global model and the server's state in this round, which FedML's loop would move by its state."""
        state, trainer = copy.deepcopy(self.server_state), self.model_trainer

        def set_model_params(model: Any) -> None:
            del trainer.set_model_params  # for one call, the loop's next
            model.update(before)
            self.server_state = state
            trainer.set_model_params(model)

        trainer.set_model_params = set_model_params

    def test(self, test_data: Any, device: Any, args: Any) -> None:
        """Test the global model as FedML does, and publish what listeners get after a test.

        Args:
            test_data: the server's batches (images, labels).
            device: the device to compute on.
            args: FedML's args, with the round in `round_idx`.
        """
        super().test(test_data, device, args)
        self.publish_tested(int(args.round_idx))
