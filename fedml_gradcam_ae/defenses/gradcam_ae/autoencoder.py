"""The autoencoder that reconstructs heat maps (paper, section 5.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

Activation = Literal["sigmoid", "identity"]


class Autoencoder(nn.Module):
    """An autoencoder with one hidden layer: positions -> hidden (ReLU) -> positions.

    The paper names neither activation. ReLU in the hidden layer is the usual choice; the sigmoid at the end is that of
    the authors' code and fits maps scaled to [0, 1].

    Args:
        positions: the number of values per map.
        hidden: the width of the hidden layer.
        output: the last activation.
        generator: draws the initial weights, on the CPU.
    """

    def __init__(self, positions: int, hidden: int, output: Activation, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = _linear(positions, hidden, generator)
        self.decoder = _linear(hidden, positions, generator)
        self.output = nn.Sigmoid() if output == "sigmoid" else nn.Identity()

    @override
    def forward(self, maps: Tensor) -> Tensor:
        """Return the reconstructions of maps (maps, positions), of the same shape."""
        reconstruction: Tensor = self.output(self.decoder(torch.relu(self.encoder(maps))))
        return reconstruction


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a float32 linear layer with PyTorch's initialization, drawn from `generator`.

    Weights and biases are U(-1/sqrt(inputs), 1/sqrt(inputs)).
    """
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float32)  # type: ignore[no-untyped-call]
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
    """Return an autoencoder trained on all maps at once, by Adam on the mean squared error (13).

    Args:
        maps: (maps, positions), finite.
        hidden: the width of the hidden layer.
        epochs: the number of passes over the maps; each is one step on all of them.
        learning_rate: Adam's learning rate.
        weight_decay: Adam's L2 penalty.
        output: the last activation.
        generator: draws the initial weights; nothing else is random.
    """
    model = Autoencoder(maps.shape[1], hidden, output, generator).to(maps)
    # The fused step reads each weight once; at 224 x 224 positions the plain step takes most of the time.
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    with torch.enable_grad():
        for _ in range(epochs):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(maps), maps).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.requires_grad_(False)


def held_out_reconstructions(
    maps: Tensor,
    held: Tensor,
    hidden: int,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    generator: torch.Generator,
) -> Tensor:
    """Reconstruct each client's maps by an autoencoder that was not trained on them.

    There is one autoencoder per fold. All start from the same weights and are trained at once by Adam on Huber's loss,
    so that a map with large deviations does not dominate the fit. The last activation is the identity.

    Args:
        maps: (clients, images, positions), finite.
        held: (folds, clients), bool: the clients that each fold's autoencoder is not trained on. A client is
            reconstructed by the first fold that holds it out, or by the first fold where none does.
        hidden: the width of the hidden layer.
        epochs: the number of passes over the maps; each is one step on all of them.
        learning_rate: Adam's learning rate.
        weight_decay: Adam's L2 penalty.
        generator: draws the initial weights.

    Returns:
        (clients, images, positions).

    Raises:
        ValueError: if a fold holds out all clients.
    """
    if bool(held.all(dim=1).any()):
        raise ValueError(
            "Each fold needs a client to train its autoencoder on, found a fold that holds out all clients."
        )
    start = Autoencoder(maps.shape[-1], hidden, "identity", generator).to(maps)
    # The folds' autoencoders are batched. Maps are so small that the number of calls determines the time: explicit
    # gradients take half of autograd's time, which is half of `torch.func.vmap`'s.
    parameters = [_stacked(p, len(held)) for layer in (start.encoder, start.decoder) for p in layer.parameters()]
    inward, inward_bias, outward, outward_bias = parameters
    flat = maps.flatten(0, 1).expand(len(held), -1, -1)
    weights = (~held).to(maps).repeat_interleave(maps.shape[1], dim=1)
    weights = (weights / weights.sum(dim=1, keepdim=True) / maps.shape[-1])[:, :, None]

    def reconstruct() -> tuple[Tensor, Tensor]:
        hidden_layer = torch.baddbmm(inward_bias[:, None], flat, inward.mT).relu_()
        return hidden_layer, torch.baddbmm(outward_bias[:, None], hidden_layer, outward.mT)

    optimizer = torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    for _ in range(epochs):
        hidden_layer, reconstructed = reconstruct()
        slope = (reconstructed - flat).clamp_(-1, 1).mul_(weights)  # the gradient of Huber's loss
        outward.grad, outward_bias.grad = torch.bmm(slope.mT, hidden_layer), slope.sum(dim=1)
        slope = torch.bmm(slope, outward).mul_(hidden_layer > 0)
        inward.grad, inward_bias.grad = torch.bmm(slope.mT, flat), slope.sum(dim=1)
        optimizer.step()
    by_fold = reconstruct()[1].view(len(held), *maps.shape)
    fold = held.to(torch.uint8).argmax(dim=0)
    return by_fold[fold, torch.arange(len(maps), device=maps.device)]


def _stacked(parameter: Tensor, copies: int) -> Tensor:
    return parameter.detach().expand(copies, *parameter.shape).clone()
