"""Networks that compute what `tiny_cnn` computes, and return it as networks in the wild do."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tiny import tiny_cnn

Named = namedtuple("Named", ["aux", "logits"])


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class ModelOutput(OrderedDict):
    """As Hugging Face's: a mapping with attributes, the features first."""

    def __init__(self, **parts: Tensor) -> None:
        super().__init__(parts)
        self.__dict__.update(parts)


class Returning(nn.Sequential):
    """A sequence of layers that returns its scores in some form."""

    def __init__(self, layers: nn.Module, form: Callable[[Tensor], Any]) -> None:
        super().__init__(*layers)
        self.form = form

    def forward(self, images: Tensor) -> Any:
        return self.form(super().forward(images))


class WithAux(Returning):
    """As torchvision's GoogLeNet: a named tuple in training, a tensor in eval mode."""

    def forward(self, images: Tensor) -> Any:
        scores = nn.Sequential.forward(self, images)
        return Named(scores.detach() * 0, scores) if self.training else scores


def returning(form: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Returning(tiny_cnn(), form)


def compiled() -> nn.Module:
    return torch.compile(tiny_cnn(), backend="eager")


# By name: the network and the setting `logits`.
ODD: dict[str, tuple[Callable[[], nn.Module], str | int | None]] = {
    "tuple": (returning(lambda scores: (scores, scores.detach() * 0)), None),
    "list with a loss": (returning(lambda scores: [scores.detach().mean(), scores]), None),
    "tuple, by position": (returning(lambda scores: (scores.detach()[:, :7], scores)), 1),
    "tuple, from the end": (returning(lambda scores: (scores.detach()[:, :7], scores)), -1),
    "dict": (returning(lambda scores: {"aux": scores.detach() * 0, "out": scores}), None),
    "dict, by key": (returning(lambda scores: {"a": scores.detach() * 0, "b": scores}), "b"),
    "dataclass": (returning(lambda scores: Output(None, scores)), None),
    "named tuple": (returning(lambda scores: Named(scores.detach() * 0, scores)), None),
    "model output": (returning(lambda scores: ModelOutput(features=scores.detach()[:, :3], logits=scores)), None),
    "aux in training": (lambda: WithAux(tiny_cnn(), lambda scores: scores), "logits"),
    "DataParallel": (lambda: nn.DataParallel(tiny_cnn()), None),
    "compiled": (compiled, None),
    "DataParallel of a tuple": (lambda: nn.DataParallel(returning(lambda scores: (scores, 1))()), None),
    "DataParallel inside": (lambda: nn.Sequential(*tiny_cnn()[:3], nn.DataParallel(tiny_cnn()[3:])), None),
}
