"""The output of networks as one tensor of logits (images, classes), whatever a network returns.

Networks for images return a tensor, a tuple with auxiliary outputs, a dict, a dataclass, or one column for two classes.
They may be wrapped (`nn.DataParallel`, DistributedDataParallel, `torch.compile`). Defenses and attacks need not know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from typing_extensions import override

from fedml_gradcam_ae.contract.settings import Parameters
from fedml_gradcam_ae.networks.evaluating import evaluating

NAMES = ("logits", "out")  # the names of the logits in Hugging Face's and in torchvision's networks
_INNER, _KEY = "inner network", "key of the logits"  # attribute names with spaces, which no layer of a network has


class OutputError(ValueError):
    """A network's output without logits; the message says what was found."""


class OutputSettings(Parameters):
    """The settings of all defenses and attacks that run the network."""

    logits: str | int | None = Field(
        default=None,
        description="place of the logits in the network's output: a key, an attribute or a position (from 0); null: "
        "the tensor itself, else `logits`, else `out`, else the first tensor of shape (images, classes)",
    )


def logits_of(output: Any, key: str | int | None = None, images: int | None = None) -> Tensor:
    """Return the logits in what a network returned.

    One column z is the logit of the second of two classes. It becomes (-z/2, z/2), which has the same probabilities as
    (0, z). With it, Grad-CAM finds as much in the first class as in the second.

    Args:
        output: a tensor, or a mapping, a sequence, a dataclass or any object that holds tensors.
        key: see `OutputSettings.logits`; ignored if the output is a tensor, as torchvision's networks return in eval
            mode.
        images: how many images the network was given; None: not known.

    Returns:
        (images, classes), at least two classes.

    Raises:
        OutputError: naming what was found instead.

    Examples:
        >>> logits_of((torch.tensor(0.5), torch.tensor([[1.0, 3.0]])))
        tensor([[1., 3.]])
        >>> logits_of({"z": torch.tensor([[4.0]])}, "z")
        tensor([[-2.,  2.]])
    """
    if isinstance(output, Tensor):
        found = output
    elif key is None:
        parts = dict(_parts(output))
        named = [parts[name] for name in NAMES if _width(parts.get(name), images)]
        candidates = named or [part for part in parts.values() if (_width(part, images) or 0) > 1]
        candidates = candidates or [part for part in parts.values() if _width(part, images)]
        if not candidates:
            raise OutputError(
                f"The network returns {_describe(output)}, with no tensor of shape (images, classes) in it. "
                "Set `logits` to the key or the position of the logits."
            )
        found = candidates[0]
    else:
        found = _at(output, key)
    if images == 1 and isinstance(found, Tensor) and found.dim() < 2:
        found = found.reshape(1, -1)  # the network squeezed the dimension of a single image away
    width = _width(found, images)
    if width is None:
        of = "" if images is None else f" for {images} image{'s' * (images != 1)}"
        where = "" if key is None or found is output else f" at logits: {key!r}"
        raise OutputError(
            f"The network must answer with logits of shape (images, classes) in floating point, found "
            f"{_describe(found)}{where}{of}."
        )
    if width == 1:
        column = found.reshape(-1)
        return torch.stack([-column / 2, column / 2], dim=1)
    logits: Tensor = found
    return logits


class Bare(nn.Module):
    """A network without its wrappers, under the same names; it shares the network's tensors and layers.

    `nn.DataParallel` cannot be run on given tensors, and runs hooks on replicas; a compiled network skips hooks. The
    names of the uploads contain the wrappers' prefixes (`module.`), so the names stay.

    Args:
        network: the network, with or without wrappers.

    Example:
        >>> network = Bare(nn.DataParallel(nn.Linear(2, 2)))
        >>> [name for name, _ in network.named_parameters()]
        ['module.weight', 'module.bias']
    """

    training: bool

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # The network's own dicts, not copies, so that changes by `functional_call` or `to` apply to both.
        self._parameters, self._buffers, self._modules = network._parameters, network._buffers, network._modules
        self._non_persistent_buffers_set = network._non_persistent_buffers_set
        while (inside := _inside(network)) is not None:
            network = inside
        self.__dict__[_INNER] = network  # not as a submodule, which would add names
        self.training = network.training

    @override
    def train(self, mode: bool = True) -> Bare:
        """Set the mode as in any module, that of the inner network included."""
        super().train(mode)
        self.__dict__[_INNER].train(mode)
        return self

    @override
    def forward(self, images: Tensor) -> Any:
        """Return what the inner network returns."""
        return self.__dict__[_INNER](images)


class Classifier(Bare):
    """A network without its wrappers that returns logits, under the same names.

    Args:
        network: the architecture.
        key: see `OutputSettings.logits`.
    """

    def __init__(self, network: nn.Module, key: str | int | None = None) -> None:
        super().__init__(network)
        self.__dict__[_KEY] = key

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (images, classes)."""
        return logits_of(super().forward(images), self.__dict__[_KEY], len(images))


def count_classes(classifier: Classifier, images: Tensor) -> int:
    """Return the number of classes of a network, from one run in eval mode.

    Args:
        classifier: the network.
        images: at least one, on the network's device.

    Raises:
        ValueError: if the network cannot run on the images, or returns no logits.
    """
    with evaluating(classifier), torch.no_grad():
        return int(run(classifier, images[:1]).shape[1])


def run(network: nn.Module, images: Tensor) -> Tensor:
    """Return what the network returns for images.

    Args:
        network: the network.
        images: (images, channels, height, width).

    Raises:
        ValueError: if the network cannot run on them: a wrong number of channels, images that are too small, or a type
            of number that the device cannot compute with.
    """
    try:
        scores: Tensor = network(images)
    except OutputError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        shape = " x ".join(str(size) for size in images.shape[1:])
        mode = "be trained" if network.training else "run"
        raise ValueError(
            f"The network cannot {mode} on images of {shape} numbers ({images.dtype}, {images.device.type}), batches "
            f"of {len(images)}: {error}"
        ) from error
    return scores


def answer_with_logits(network: nn.Module, key: str | int | None = None) -> torch.utils.hooks.RemovableHandle:
    """Make a network return logits where it returns no tensor or a single column, until the handle is removed.

    FedML's own trainers and tests can only use tensors of at least two classes; such outputs stay as they are.

    Args:
        network: the network, which gets a hook.
        key: see `OutputSettings.logits`.

    Returns:
        The handle that removes the hook.
    """

    def read(_network: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        if isinstance(output, Tensor) and output.dim() > 1 and output.shape[1:] != (1,):
            return None
        return logits_of(output, key, len(inputs[0]) if inputs else None)

    return network.register_forward_hook(read)


def _inside(network: nn.Module) -> nn.Module | None:
    """Return the network inside a wrapper; None if the network is no wrapper."""
    if isinstance(network, Bare):
        inner: nn.Module = network.__dict__[_INNER]
        return inner
    if isinstance(network, (DataParallel, DistributedDataParallel)):
        inside: nn.Module | None = network.module
        return inside
    inside = network._modules.get("_orig_mod")  # of `torch.compile`
    return inside if inside is not None and len(network._modules) == 1 else None


def _parts(output: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield the parts of an output by key, attribute or position."""
    if isinstance(output, Mapping):
        yield from output.items()
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from zip(output._fields, output, strict=True)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        yield from enumerate(output)
    elif dataclasses.is_dataclass(output):
        yield from ((field.name, getattr(output, field.name)) for field in dataclasses.fields(output))
    else:
        yield from getattr(output, "__dict__", {}).items()


def _at(output: Any, key: str | int) -> Any:
    parts = dict(_parts(output))
    if key in parts:
        return parts[key]
    if isinstance(key, int) and -len(parts) <= key < len(parts):
        return list(parts.values())[key]
    if isinstance(key, str) and hasattr(output, key):
        return getattr(output, key)  # a property
    raise OutputError(
        f"logits: the network returns {_describe(output)}, which has no {key!r}. "
        f"It has: {', '.join(map(repr, parts)) or 'nothing'}."
    )


def _width(value: Any, images: int | None) -> int | None:
    """Return the number of columns of a value (images, classes), (images, 1) or (images,); None for other values."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() not in (1, 2):
        return None
    if images is not None and len(value) != images:
        return None
    return 1 if value.dim() == 1 else value.shape[1] or None


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)} ({output.dtype})"
    parts = [f"{key!r}: {_describe(part) if isinstance(part, Tensor) else type(part).__name__}"
             for key, part in _parts(output)]  # fmt: skip
    return f"{type(output).__name__} ({', '.join(parts)})" if parts else type(output).__name__
