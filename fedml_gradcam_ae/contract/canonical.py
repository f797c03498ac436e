"""The canonical form of a client's upload.

A canonical upload is a plain dict with the model's names in the model's order. Its tensors

* are plain and dense, without a gradient, and on the model's device;
* have the model's shapes and types;
* share their memory with no other tensor, and are contiguous or channels_last;
* are finite in float32.

Frozen tensors are the global model's. A tensor that the network has under two names is one object.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.shown import kind, shown
from fedml_gradcam_ae.contract.template import Expected, Template
from fedml_gradcam_ae.contract.updates import is_whole

# The largest absolute value in any floating-point tensor, so that squares and their sums stay finite in float64.
LARGEST = torch.finfo(torch.float32).max
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class UnusableError(ValueError):
    """An upload that has no canonical form; the message gives the reason."""


def canonical_upload(upload: object, claim: float, template: Template) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the upload in its canonical form.

    Args:
        upload: what a client sent as its model.
        claim: the number of samples that the client claims.
        template: the template of this round. It records the memory of admitted tensors, so that no other upload
            shares it.

    Returns:
        The upload, the very same object if it is canonical already, and the names of the frozen tensors that differed
        from the global model's.

    Raises:
        UnusableError: if the upload has no canonical form.
        Exception: of any kind, if looking at the upload fails.

    Example:
        >>> template = Template.of({"weight": torch.zeros(2)})
        >>> canonical_upload({"weight": nn.Parameter(torch.ones(2))}, 20, template)
        ({'weight': tensor([1., 1.])}, ())
        >>> canonical_upload({"weight": torch.tensor([1.0, float("nan")])}, 20, template)
        Traceback (most recent call last):
            ...
        fedml_gradcam_ae.contract.canonical.UnusableError: 'weight' holds NaN or infinity
    """
    given = _given(upload, template)
    found: dict[str, Tensor] = {}
    replaced = []
    for name, expected in template.tensors.items():
        if expected.same_as is not None:
            continue
        tensor = _dense(name, given[name], expected)
        if expected.frozen and not _as_it_was(tensor, expected.like):
            replaced.append(name)
            tensor = expected.like.detach().clone()
        found[name] = tensor
    for name, expected in template.tensors.items():
        if expected.same_as is not None:
            found[name] = _alias(name, given[name], expected, found[expected.same_as], given[expected.same_as])
    _check_numbers(found, claim, template)
    canonical = {name: _own(found[name], template) for name in template.tensors if name in found}
    for name, expected in template.tensors.items():
        if expected.same_as is not None:
            canonical[name] = canonical[expected.same_as]
    if type(upload) is dict and list(upload) == list(canonical) and all(upload[n] is canonical[n] for n in canonical):
        return upload, ()
    return canonical, tuple(replaced)


def _given(upload: object, template: Template) -> dict[str, object]:
    """Return the tensors by name.

    They are read by the methods of `dict` itself: those of a subclass or of another object may lie.
    """
    cls = type(upload)
    if cls is not dict and cls is not OrderedDict:
        raise UnusableError(f"an upload must be a mapping from names to tensors, found {kind(upload)}")
    assert isinstance(upload, dict)
    items = dict.items(upload)
    if odd := [key for key, _ in items if type(key) is not str]:
        raise UnusableError(f"an upload's names must be text, found {shown(odd[0])}")
    given = dict(items)
    if missing := [name for name in template.tensors if name not in given]:
        raise UnusableError(
            f"{len(missing)} of {len(template.tensors)} tensors are missing, the first is {missing[0]!r}"
        )
    if extra := [name for name in given if name not in template.tensors]:
        raise UnusableError(f"{len(extra)} tensors do not belong to the model, the first is {shown(extra[0])}")
    return given


def _dense(name: str, found: object, expected: Expected) -> Tensor:
    """Return the tensor on the model's device, without gradient and graph.

    Raises:
        UnusableError: if it is no dense tensor of the shape and the type of the model's.
    """
    cls = type(found)
    if cls is not Tensor and cls is not nn.Parameter:
        raise UnusableError(f"{name!r} must be a tensor, found {kind(found)}")
    assert isinstance(found, Tensor)
    # An attribute set on a tensor can hide a method. Detaching gives a tensor without such attributes.
    bare = cls is Tensor and not found.__dict__ and not found.requires_grad and found._grad is None
    tensor = found if bare else Tensor.detach(found)
    if tensor.is_nested:
        raise UnusableError(f"{name!r} must be a dense tensor, found a nested one")
    if tensor.layout is not torch.strided:
        raise UnusableError(f"{name!r} must be a dense tensor, found one in the layout {tensor.layout}")
    if tensor.is_quantized:
        raise UnusableError(f"{name!r} must hold plain numbers, found a quantized tensor")
    if tensor.is_meta:
        raise UnusableError(f"{name!r} holds no numbers: it is on the device meta")
    like = expected.like
    if tensor.shape != like.shape:
        raise UnusableError(f"{name!r} must have shape {tuple(like.shape)}, found {_shape(tensor)}")
    if tensor.dtype != like.dtype:
        raise UnusableError(f"{name!r} must be {like.dtype}, found {tensor.dtype}")
    if expected.size and _end(tensor) > tensor.untyped_storage().nbytes():
        raise UnusableError(f"{name!r} reaches beyond the end of its memory")
    return tensor if tensor.device == like.device else tensor.to(like.device)


def _end(tensor: Tensor) -> int:
    """Return the position of the end of the tensor's last number in its memory, in bytes."""
    if tensor.is_contiguous():
        steps = tensor.numel() - 1
    else:
        steps = sum((size - 1) * int(step) for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (int(tensor.storage_offset()) + steps + 1) * tensor.element_size()


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape)) if tensor.dim() <= 8 else f"{tensor.dim()} dimensions"


def _alias(name: str, given: object, expected: Expected, first: Tensor, given_first: object) -> Tensor:
    """Return the one value of a tensor that the network has under two names, or raise if the upload has two values."""
    if not expected.frozen and given is not given_first:
        tensor = _dense(name, given, expected)
        same = tensor.data_ptr() == first.data_ptr() and tensor.stride() == first.stride()
        if not same and not torch.equal(tensor, first):
            raise UnusableError(f"{name!r} and {expected.same_as!r} are one tensor in the network, found two values")
    return first


def _check_numbers(found: Mapping[str, Tensor], claim: float, template: Template) -> None:
    trained = [
        (name, tensor)
        for name, tensor in found.items()
        if tensor.numel() and not template.tensors[name].frozen and template.tensors[name].same_as is None
    ]
    floats = [(name, tensor) for name, tensor in trained if not is_whole(tensor)]
    if not _look_finite([tensor for _, tensor in floats]):
        for name, tensor in floats:
            if not bool(torch.isfinite(tensor).all()):
                raise UnusableError(f"{name!r} holds NaN or infinity")
            if bool((tensor.abs() > LARGEST).any()):
                raise UnusableError(f"{name!r} holds numbers beyond float32's largest, {LARGEST:.4g}")
    variances = [(name, tensor) for name, tensor in floats if template.tensors[name].lowest is not None]
    if variances and bool(torch.stack([tensor.min().double() for _, tensor in variances]).min() < 0):
        name = next(name for name, tensor in variances if bool((tensor < 0).any()))
        raise UnusableError(f"{name!r} holds a negative variance")
    if problem := count_problem(dict(trained), claim, template):
        raise UnusableError(problem)


def _as_it_was(tensor: Tensor, like: Tensor) -> bool:
    """Return whether a tensor equals the global model's, which may hold infinity or NaN (a mask, for example)."""
    return torch.equal(tensor, like) or bool(((tensor == like) | (tensor.isnan() & like.isnan())).all())


def _look_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether one pass over the tensors proves that they hold neither NaN nor infinity nor too large a number.

    False proves nothing. A finite sum has finite terms only, and takes a tenth of the time of checking each term. A
    finite norm does so as well, and bounds the terms. All results are read from the device at once.
    """
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        total = torch.linalg.vector_norm(tensor) if tensor.dtype == torch.float64 else tensor.sum()
        found.setdefault(tensor.dtype, []).append(total)
    return all(bool((torch.stack(totals).abs() <= LARGEST).all()) for totals in found.values())


def count_problem(found: Mapping[str, Tensor], samples: float, template: Template) -> str | None:
    """Return what is wrong with an upload's tensors of whole numbers, or None.

    Args:
        found: tensors of the upload by name.
        samples: the number of samples that the client counts for, which limits a count of batches.
        template: the template of this round.

    Example:
        >>> count = "norm.num_batches_tracked"
        >>> template = Template.of({count: torch.tensor(5)})
        >>> count_problem({count: torch.tensor(3)}, 1, template)
        "'norm.num_batches_tracked' must count 5 to 1005, found 3"
    """
    for name, tensor in found.items():
        expected = template.tensors[name]
        if not is_whole(tensor) or expected.lowest is None:
            continue
        least, most = (int(end) for end in tensor.aminmax())
        if least < expected.lowest or most > expected.highest(samples):
            worst = least if least < expected.lowest else most
            what = "count" if expected.counts else "hold"
            return f"{name!r} must {what} {expected.lowest} to {expected.highest(samples)}, found {worst}"
    return None


def _own(tensor: Tensor, template: Template) -> Tensor:
    """Return the tensor with memory that nothing else uses; a copy only if it shares its memory."""
    if not tensor.numel():
        return torch.empty_like(tensor)
    contiguous = tensor.is_contiguous()
    channels_last = (
        not contiguous and tensor.dim() in _FORMATS and tensor.is_contiguous(memory_format=_FORMATS[tensor.dim()])
    )
    storage = tensor.untyped_storage()
    alone = (
        (contiguous or channels_last)
        and storage.nbytes() == tensor.numel() * tensor.element_size()
        and storage.resizable()  # memory that comes from numpy or from a file may be shared
        and storage.data_ptr() not in template.taken
        and not (tensor.is_inference() or tensor.is_neg() or tensor.is_conj())
    )
    if not alone:
        kept = _FORMATS[tensor.dim()] if channels_last else torch.contiguous_format
        tensor = torch.empty_like(tensor, memory_format=kept).copy_(tensor)
        storage = tensor.untyped_storage()
    template.taken.add(storage.data_ptr())
    return tensor
