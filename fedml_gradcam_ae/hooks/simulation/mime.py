"""Mime in the single-process simulator: models are judged, and gradients count as the models of their clients do.

Reference: Karimireddy et al., "Breaking the centralized barrier for cross-device federated learning", NeurIPS 2021. A
client uploads its model and the gradient of its data, of length 1 at most, for the server's optimizer.
"""

from __future__ import annotations

from typing import Any

from fedml.simulation.sp.mime.mime_trainer import MimeTrainer
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.hooks.simulation.extras import aggregate_extras, unusable
from fedml_gradcam_ae.hooks.simulation.judged_trainer import JudgedTrainer
from fedml_gradcam_ae.hooks.surroundings import identity


class HookedMimeTrainer(JudgedTrainer, MimeTrainer):  # type: ignore[misc]  # fedml has no types
    """MimeTrainer in which attacks and defenses act."""

    def _instanciate_opt(self) -> None:
        super()._instanciate_opt()
        self.opt_loader.set_grad = self._set_grad

    def _set_grad(self, grad: Any) -> None:
        """Give the server's optimizer its gradient; none in a round in which the model stays."""
        type(self.opt_loader).set_grad(self.opt_loader, grad)
        self.hold_still()

    @override
    def _aggregate(self, w_locals: Any) -> tuple[Any, dict[str, Tensor]]:
        """Return the mean model and the mean gradient.

        Args:
            w_locals: triples (sample count, state dict, gradient by name).
        """
        gradients = {
            identity(client): gradient for client, (_, _, gradient) in zip(self.sampled, w_locals, strict=True)
        }
        model = self.judge([(n, upload) for n, upload, _ in w_locals], unusable(gradients, "gradient"))
        mean = aggregate_extras(gradients, self.round, self.average)
        return model, self.grad_global if mean is None else mean
