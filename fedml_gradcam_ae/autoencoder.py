"""The autoencoder that heat maps are reconstructed with (paper, section 5.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["sigmoid", "identity"]


class Autoencoder(nn.Module):
    """One hidden layer: positions -> hidden (ReLU) -> positions.

    The paper names neither activation; ReLU inside is the usual choice, the sigmoid at the end is the
    authors' code's and fits maps scaled to [0, 1].
    """

    def __init__(self, positions: int, hidden: int, output: Activation, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = _linear(positions, hidden, generator)
        self.decoder = _linear(hidden, positions, generator)
        self.output = nn.Sigmoid() if output == "sigmoid" else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(maps, positions) -> the same shape."""
        reconstruction: Tensor = self.output(self.decoder(torch.relu(self.encoder(maps))))
        return reconstruction


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """PyTorch's own start for a linear layer, U(-1/sqrt(inputs), 1/sqrt(inputs)), from a private generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    bound = inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def fit_autoencoder(
    maps: Tensor,
    hidden: int,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    output: Activation,
    generator: torch.Generator,
) -> Autoencoder:
    """Train an autoencoder on all maps at once: Adam on the mean squared error (13).

    Args:
        maps: (maps, positions), finite.
        hidden: width of the hidden layer.
        epochs: passes over the maps; each is one step on all of them.
        learning_rate: Adam's.
        weight_decay: Adam's L2 penalty.
        output: the last activation.
        generator: draws the initial weights; nothing else is random.
    """
    model = Autoencoder(maps.shape[1], hidden, output, generator).to(maps.device)
    # The fused step touches each weight once; at 224 x 224 positions the plain one takes most of the time.
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    with torch.enable_grad():
        for _ in range(epochs):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(maps), maps).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.requires_grad_(False)
