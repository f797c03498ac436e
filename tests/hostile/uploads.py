"""Hostile uploads: functions from a client's honest upload to what it sends in its place."""

from __future__ import annotations

import warnings
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hostile.cases import case, heading
from hostile.network import State, network

TENSOR = r"tensor|layout|dense|strided|decod|forbidden|allowed|name"
LEFT = "left out"


def upload(*outcomes: Any, report: str | None = None, **more: Any) -> Callable[..., Any]:
    return case("upload", *outcomes, report=report, **more)


def with_tensor(mine: State, name: str, tensor: Any) -> State:
    return OrderedDict((key, tensor if key == name else value) for key, value in mine.items())


def with_number(mine: State, name: str, number: float) -> State:
    changed = mine[name].clone()
    changed.view(-1)[0] = number
    return with_tensor(mine, name, changed)


heading("numbers that are not finite")


@upload(LEFT, report="NaN or infinity")
def nan_in_one_number(mine: State) -> Any:
    """NaN in one number"""
    return with_number(mine, "conv.weight", float("nan"))


@upload(LEFT, report="NaN or infinity")
def infinity_in_one_number(mine: State) -> Any:
    """infinity in one number"""
    return with_number(mine, "norm.bias", float("inf"))


@upload(LEFT, report="NaN or infinity")
def infinities_that_cancel(mine: State) -> Any:
    """infinity and minus infinity in one tensor"""
    return with_tensor(mine, "norm.bias", torch.tensor([1.0, float("inf"), float("-inf"), 1.0]))


@upload(LEFT, report="NaN or infinity")
def nan_in_a_running_mean(mine: State) -> Any:
    """NaN in BatchNorm's running mean"""
    return with_number(mine, "norm.running_mean", float("nan"))


@upload(LEFT, report="NaN or infinity")
def infinite_running_variance(mine: State) -> Any:
    """an infinite running variance"""
    return with_number(mine, "norm.running_var", float("inf"))


@upload(LEFT, "taken", report="NaN or infinity|frozen")
def nan_in_a_frozen_layer(mine: State) -> Any:
    """NaN in a layer that is not trained"""
    return with_number(mine, "stem.weight", float("nan"))


@upload(LEFT, "taken", report="NaN or infinity|differ|tied|one tensor")
def nan_under_the_second_name_of_a_tied_tensor(mine: State) -> Any:
    """NaN under the second name of a tied tensor"""
    return with_number(mine, "twin.bias", float("nan"))


heading("statistics and counters out of their range")


@upload(LEFT, report="negative|variance")
def negative_variance(mine: State) -> Any:
    """a negative running variance"""
    return with_number(mine, "norm.running_var", -1e-3)


@upload(LEFT, report="num_batches_tracked")
def batches_tracked_at_the_largest_number(mine: State) -> Any:
    """a number of batches of 2^63 - 1"""
    return with_tensor(mine, "norm.num_batches_tracked", torch.tensor(2**63 - 1))


@upload(LEFT, report="num_batches_tracked")
def batches_tracked_at_the_smallest_number(mine: State) -> Any:
    """a number of batches of -2^63"""
    return with_tensor(mine, "norm.num_batches_tracked", torch.tensor(-(2**63)))


@upload(LEFT, report="num_batches_tracked")
def batches_tracked_below_the_global_models(mine: State) -> Any:
    """a number of batches below the global model's"""
    return with_tensor(mine, "norm.num_batches_tracked", mine["norm.num_batches_tracked"] - 1)


@upload(LEFT, report="num_batches_tracked")
def batches_tracked_beyond_the_claimed_samples(mine: State) -> Any:
    """more batches than the claimed samples can have made"""
    return with_tensor(mine, "norm.num_batches_tracked", torch.tensor(10**9))


heading("tensors of another kind")


@upload(LEFT, report=TENSOR)
def sparse_tensor(mine: State) -> Any:
    """a sparse tensor (COO)"""
    return with_tensor(mine, "conv.weight", mine["conv.weight"].to_sparse())


@upload(LEFT, report=TENSOR)
def sparse_tensor_by_rows(mine: State) -> Any:
    """a sparse tensor (CSR)"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return with_tensor(mine, "head.weight", mine["head.weight"].to_sparse_csr())


@upload(LEFT, report=TENSOR)
def sparse_tensor_that_claims_to_be_huge(mine: State) -> Any:
    """a sparse tensor of 2^40 numbers, all zero"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return with_tensor(mine, "head.weight", torch.sparse_coo_tensor(size=(2**20, 2**20)))


@upload(LEFT, report=TENSOR)
def nested_tensor(mine: State) -> Any:
    """a nested tensor"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return with_tensor(mine, "head.bias", torch.nested.nested_tensor([torch.zeros(4), torch.zeros(6)]))


@upload(LEFT, report=rf"meta|device|{TENSOR}")
def meta_tensor(mine: State) -> Any:
    """a tensor without data (device meta)"""
    return with_tensor(mine, "conv.weight", torch.empty_like(mine["conv.weight"], device="meta"))


@upload(LEFT, report=rf"must be torch.float32|{TENSOR}")
def quantized_tensor(mine: State) -> Any:
    """a quantized tensor"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(mine["conv.weight"], 0.1, 0, torch.qint8)
    return with_tensor(mine, "conv.weight", quantized)


@upload(LEFT, "taken", report=TENSOR, on_the_wire=False)
def onednn_tensor(mine: State) -> Any:
    """a tensor in a library's own layout (oneDNN)"""
    return with_tensor(mine, "head.weight", mine["head.weight"].to_mkldnn())


@upload(LEFT, "taken", report=TENSOR)
def parameters(mine: State) -> Any:
    """parameters (nn.Parameter) in the place of tensors"""
    return OrderedDict((n, nn.Parameter(t) if t.is_floating_point() else t) for n, t in mine.items())


@upload(LEFT, "taken", report=TENSOR)
def tensors_that_require_gradients(mine: State) -> Any:
    """tensors that require gradients"""
    return OrderedDict((n, t.clone().requires_grad_(t.is_floating_point())) for n, t in mine.items())


@upload(LEFT, "taken", report=TENSOR, on_the_wire=False)
def tensors_inside_a_computation(mine: State) -> Any:
    """tensors that still hold the computation they come from"""
    return OrderedDict((n, t.clone().requires_grad_() * 1 if t.is_floating_point() else t) for n, t in mine.items())


class LyingTensor(torch.Tensor):
    """Says of itself that all is finite."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "isfinite" in getattr(function, "__name__", "") or "sum" in getattr(function, "__name__", ""):
            return torch.tensor(True)
        return super().__torch_function__(function, types, args, kwargs or {})


@upload(LEFT, report=rf"NaN or infinity|{TENSOR}")
def a_tensor_class_of_its_own_that_lies(mine: State) -> Any:
    """a tensor class of its own that calls NaN finite"""
    return with_tensor(mine, "conv.bias", torch.full((4,), float("nan")).as_subclass(LyingTensor))


heading("tensors in unusual memory")


@upload(LEFT, report=rf"storage|memory|{TENSOR}")
def tensor_larger_than_its_storage(mine: State) -> Any:
    """a tensor larger than its storage"""
    short = mine["head.weight"].clone()
    short.untyped_storage().resize_(short.untyped_storage().nbytes() - 4)  # the allocator's padding is read, no more
    return with_tensor(mine, "head.weight", short)


@upload(LEFT, "taken", report=TENSOR)
def one_number_expanded(mine: State) -> Any:
    """one number in memory, expanded to a whole tensor"""
    return with_tensor(mine, "norm.bias", mine["norm.bias"][:1].clone().expand(4))


@upload(LEFT, "taken", report=TENSOR)
def tensors_that_overlap(mine: State) -> Any:
    """two tensors that overlap in memory"""
    room = torch.cat([mine["norm.weight"], mine["norm.running_var"][:2]])
    return with_tensor(with_tensor(mine, "norm.weight", room[:4]), "norm.running_var", room[2:])


@upload(LEFT, "taken", report=TENSOR)
def columns_before_rows(mine: State) -> Any:
    """a tensor that is stored by columns"""
    return with_tensor(mine, "head.weight", mine["head.weight"].t().contiguous().t())


@upload(LEFT, "taken", report=TENSOR)
def a_view_into_a_larger_storage(mine: State) -> Any:
    """a view into a storage that is larger than the tensor"""
    room = torch.zeros(5000)
    room[100:104] = mine["conv.bias"]
    return with_tensor(mine, "conv.bias", room[100:104])


@upload(LEFT, "taken", report=TENSOR)
def negated_view(mine: State) -> Any:
    """a view that negates when it is read"""
    return with_tensor(mine, "conv.bias", torch._neg_view(-mine["conv.bias"]))


@upload(LEFT, "taken", report=TENSOR)
def two_tensors_in_one_memory(mine: State) -> Any:
    """two tensors in the same memory"""
    return with_tensor(mine, "norm.running_mean", mine["norm.bias"])


heading("another shape")


@upload(LEFT, report="shape")
def another_shape(mine: State) -> Any:
    """a tensor of another shape"""
    return with_tensor(mine, "conv.weight", mine["conv.weight"][:2])


@upload(LEFT, report="shape")
def flattened(mine: State) -> Any:
    """as many numbers in another shape"""
    return with_tensor(mine, "conv.weight", mine["conv.weight"].flatten())


@upload(LEFT, report="shape")
def a_scalar_that_broadcasts(mine: State) -> Any:
    """one number in the place of a tensor"""
    return with_tensor(mine, "conv.weight", torch.tensor(0.5))


@upload(LEFT, report="shape")
def a_tensor_of_nothing(mine: State) -> Any:
    """a tensor without numbers"""
    return with_tensor(mine, "conv.weight", torch.zeros(0))


@upload(LEFT, report="shape")
def a_frozen_layer_of_another_shape(mine: State) -> Any:
    """a layer that is not trained, in another shape"""
    return with_tensor(mine, "stem.weight", torch.zeros(3))


@upload(LEFT, report="shape|bytes")
def a_huge_tensor(mine: State) -> Any:
    """a tensor of 8 million numbers where some are right"""
    return with_tensor(mine, "conv.bias", torch.zeros(8_000_000))


heading("another type")


def retyped(mine: State, kind: torch.dtype) -> State:
    return OrderedDict((n, t.to(kind) if t.is_floating_point() else t) for n, t in mine.items())


@upload(LEFT, report="float64")
def double_precision(mine: State) -> Any:
    """float64 in the place of float32"""
    return retyped(mine, torch.float64)


@upload(LEFT, report="float16")
def half_precision(mine: State) -> Any:
    """float16 in the place of float32"""
    return retyped(mine, torch.float16)


@upload(LEFT, report="bfloat16")
def bfloat16(mine: State) -> Any:
    """bfloat16 in the place of float32"""
    return retyped(mine, torch.bfloat16)


@upload(LEFT, report=rf"float8|{TENSOR}")
def float8(mine: State) -> Any:
    """eight bits a number in the place of float32"""
    return retyped(mine, torch.float8_e4m3fn)


@upload(LEFT, report="complex")
def complex_numbers(mine: State) -> Any:
    """complex numbers"""
    return with_tensor(mine, "head.bias", mine["head.bias"].to(torch.complex64))


@upload(LEFT, report="bool")
def truth_values(mine: State) -> Any:
    """truth values in the place of weights"""
    return with_tensor(mine, "head.bias", mine["head.bias"] > 0)


@upload(LEFT, report="int32")
def a_counter_of_another_type(mine: State) -> Any:
    """a counter in 32 bits"""
    return with_tensor(mine, "norm.num_batches_tracked", mine["norm.num_batches_tracked"].int())


heading("other names")


@upload(LEFT, report="missing")
def a_missing_tensor(mine: State) -> Any:
    """a tensor is missing"""
    return OrderedDict(list(mine.items())[1:])


@upload(LEFT, report="do not belong|does not belong")
def an_extra_tensor(mine: State) -> Any:
    """a tensor too many"""
    return OrderedDict([*mine.items(), ("extra.weight", torch.zeros(2))])


@upload(LEFT, report="do not belong|does not belong|bytes")
def a_huge_extra_tensor(mine: State) -> Any:
    """an extra tensor of 8 million numbers"""
    return OrderedDict([*mine.items(), ("extra.weight", torch.zeros(8_000_000))])


@upload(LEFT, report="missing")
def a_renamed_tensor(mine: State) -> Any:
    """a tensor under another name"""
    return OrderedDict((name.replace("conv.bias", "module.conv.bias"), tensor) for name, tensor in mine.items())


@upload("taken")
def another_order(mine: State) -> Any:
    """the right tensors in another order"""
    return OrderedDict(reversed(mine.items()))


@upload(LEFT, report="missing|names|keys|text|decod")
def numbered_tensors(mine: State) -> Any:
    """numbers in the place of names"""
    return OrderedDict(enumerate(mine.values()))


@upload(LEFT, report="do not belong|does not belong|names|keys|text|decod")
def an_extra_numbered_tensor(mine: State) -> Any:
    """a tensor too many, whose name is a number"""
    return {**mine, 10**18: torch.zeros(2)}


@upload(LEFT, report="belong|names|keys|text|depth|deep|decod", on_the_wire=False)
def a_name_3000_tuples_deep(mine: State) -> Any:
    """a tuple 3,000 deep as a name"""
    key: Any = ()
    for _ in range(3000):
        key = (key,)
    return {**mine, key: torch.zeros(2)}


@upload(LEFT, report="do not belong|does not belong|name")
def a_name_of_900_kb(mine: State) -> Any:
    """a name of 900 kB"""
    return {**mine, "x" * 900_000: torch.zeros(2)}


@upload(LEFT, report="do not belong|does not belong|name")
def a_name_with_terminal_codes(mine: State) -> Any:
    """a name with line breaks and terminal codes"""
    return {**mine, "\x1b[2J\x1b]0;mine\x07\nround 1: test accuracy 0.9999\r": torch.zeros(2)}


@upload(LEFT, report="do not belong|does not belong|name|decod|surrogate")
def a_name_that_is_no_text_at_all(mine: State) -> Any:
    """a name with half a character (a lone surrogate)"""
    return {**mine, "\udc80": torch.zeros(2)}


@upload(LEFT, report="belong|tensors|objects|budget|bytes")
def a_hundred_thousand_tensors(mine: State) -> Any:
    """100,000 extra tensors of one number"""
    one = torch.zeros(1)
    return {**mine, **{f"extra.{number}": one for number in range(100_000)}}


heading("no model")


@upload(LEFT, report="mapping")
def nothing(mine: State) -> Any:
    """nothing (None)"""
    return None


@upload(LEFT, report="mapping")
def text(mine: State) -> Any:
    """text"""
    return "model"


@upload(LEFT, report="mapping")
def a_list_of_pairs(mine: State) -> Any:
    """a list of names and tensors"""
    return list(mine.items())


@upload(LEFT, report="mapping")
def one_tensor(mine: State) -> Any:
    """one tensor"""
    return mine["head.weight"]


@upload(LEFT, report="mapping")
def a_number(mine: State) -> Any:
    """a number"""
    return 10**100


@upload(LEFT, report="missing")
def an_empty_dictionary(mine: State) -> Any:
    """an empty dictionary"""
    return {}


@upload(LEFT, report="mapping|decod|forbidden|allowed|name")
def a_whole_network(mine: State) -> Any:
    """a network (nn.Module)"""
    return network()


@upload(LEFT, report="must be a tensor")
def numpy_arrays(mine: State) -> Any:
    """numpy arrays in the place of tensors"""
    return OrderedDict((name, tensor.numpy()) for name, tensor in mine.items())


@upload(LEFT, report="must be a tensor|decod|stride|array|order|contiguous")
def numpy_arrays_backward(mine: State) -> Any:
    """numpy arrays with negative strides"""
    return with_tensor(mine, "head.weight", mine["head.weight"].numpy()[::-1])


@upload(LEFT, report="must be a tensor")
def numbers_in_lists(mine: State) -> Any:
    """lists of numbers in the place of tensors"""
    return OrderedDict((name, tensor.tolist()) for name, tensor in mine.items())


@upload(LEFT, report="must be a tensor")
def a_dictionary_in_the_place_of_a_tensor(mine: State) -> Any:
    """a dictionary in the place of a tensor"""
    return with_tensor(mine, "conv.bias", {"data": mine["conv.bias"]})


heading("dictionaries of another kind")


@upload(LEFT, "taken", report="mapping|items|attribute|state|decod|build", on_the_wire=False)
def shadowed_items(mine: State) -> Any:
    """a dictionary whose method `items` is text"""
    mine = OrderedDict(mine)
    mine.items = "gone"  # type: ignore[assignment,method-assign]
    return mine


class LyingItems(dict):  # type: ignore[type-arg]
    """Shows other tensors to a loop than to a look-up."""

    def items(self) -> Any:
        return {name: tensor * float("nan") for name, tensor in super().items()}.items()

    def values(self) -> Any:
        return [tensor for _, tensor in self.items()]


@upload(LEFT, "taken", report="mapping|NaN|decod|forbidden|allowed|name")
def a_dictionary_that_lies(mine: State) -> Any:
    """a dictionary that shows a loop other tensors than a look-up"""
    return LyingItems(mine)


class Ordered(OrderedDict):  # type: ignore[type-arg]
    """A class of the sender's own."""


@upload(LEFT, "taken", report="mapping|decod|forbidden|allowed|name")
def a_dictionary_class_of_its_own(mine: State) -> Any:
    """a dictionary of a class of its own"""
    return Ordered(mine)


class Failing(UserDict):  # type: ignore[type-arg]
    """Its names are right, its tensors are not there."""

    def __getitem__(self, key: str) -> Tensor:
        raise RuntimeError("\x1b[2Jno")

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)


@upload(LEFT, report="mapping|RuntimeError|decod|forbidden|allowed|name|read")
def a_mapping_that_fails_when_read(mine: State) -> Any:
    """a mapping that fails when it is read"""
    failing = Failing()
    failing.data = dict(mine)
    return failing


@upload(LEFT, report="missing|mapping|decod|forbidden|allowed|name")
def a_dictionary_that_makes_up_what_is_missing(mine: State) -> Any:
    """a dictionary that makes up what is missing"""
    return defaultdict(dict, list(mine.items())[1:])


class Name(str):
    """Equal to nothing, loudly."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("\x1b[2Jno")

    def __hash__(self) -> int:
        return str.__hash__(self)


@upload(LEFT, "taken", report="name|key|RuntimeError|decod|forbidden|allowed|read", on_the_wire=False)
def names_that_cannot_be_compared(mine: State) -> Any:
    """names of a class of their own that fail when compared"""
    return {Name(name): tensor for name, tensor in mine.items()}


heading("frozen layers and tied tensors")


@upload("taken")
def a_frozen_layer_times_1000(mine: State) -> Any:
    """a layer that is not trained, times 1,000"""
    return with_tensor(mine, "stem.weight", mine["stem.weight"] * 1000)


@upload(LEFT, "taken", report="tied|twin|differ|names|one tensor")
def two_names_of_one_tensor_that_differ(mine: State) -> Any:
    """the second name of a tied tensor with other numbers"""
    return with_tensor(mine, "twin.weight", mine["twin.weight"] * 1000)


heading("usable numbers that poison")


@upload("bounded")
def a_hundred_in_one_bias(mine: State) -> Any:
    """100 added to the bias of one class"""
    return with_bias(mine, 100.0)


@upload("bounded")
def a_huge_number_in_one_bias(mine: State) -> Any:
    """1e30 added to the bias of one class"""
    return with_bias(mine, 1e30)


@upload("bounded")
def the_largest_number_in_one_bias(mine: State) -> Any:
    """3e38 in the bias of one class"""
    return with_bias(mine, 3e38)


def with_bias(mine: State, number: float) -> State:
    return with_number(with_number(mine, "head.bias", number), "twin.bias", number)


@upload("bounded")
def the_largest_number_everywhere(mine: State) -> Any:
    """3e38 in every number that is trained"""
    return OrderedDict(
        (n, torch.full_like(t, 3e38) if n.startswith(("conv", "head", "twin")) else t) for n, t in mine.items()
    )


@upload("bounded")
def a_huge_running_mean(mine: State) -> Any:
    """a running mean of 1e30"""
    return with_number(mine, "norm.running_mean", 1e30)


@upload("bounded")
def a_huge_running_variance(mine: State) -> Any:
    """a running variance of 1e38"""
    return with_number(mine, "norm.running_var", 1e38)


@upload("bounded")
def a_layer_times_minus_1000(mine: State) -> Any:
    """a layer times -1,000"""
    return with_tensor(mine, "conv.weight", mine["conv.weight"] * -1000)


@upload("bounded")
def numbers_too_small_for_arithmetic(mine: State) -> Any:
    """numbers of 1e-45 in the place of a layer"""
    return with_tensor(mine, "conv.weight", torch.full_like(mine["conv.weight"], 1e-45))
