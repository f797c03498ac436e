"""The gate: what passes it, in which form, and what is refused for which reason."""

from __future__ import annotations

import copy
import math
from collections import ChainMap, OrderedDict
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.screening import Admitted, Rejected, admit, pass_gate, screen, upload_problem
from fedml_gradcam_ae.contract.template import Template
from tiny import state_of, tiny_cnn

WEIGHT, VARIANCE, COUNT = "0.weight", "1.running_var", "1.num_batches_tracked"


class Sneaky(dict):
    """Shows other tensors than it holds."""

    def items(self):
        return iter([("anything", 1)])

    def __getitem__(self, name):
        raise SystemExit


class Liar:
    """Anything that looks at it is misled, or ends."""

    @property
    def __class__(self):
        return dict

    def __len__(self):
        raise OSError

    def __iter__(self):
        while True:
            yield "0.weight"

    def __repr__(self):
        raise RecursionError


class OwnTensor(Tensor):
    """A tensor whose class is the sender's."""


class OwnText(str):
    """Text that is equal to everything."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


def nothing_behind(tensor):
    tensor.untyped_storage().resize_(4)
    return tensor


def with_own_methods(tensor):
    tensor.detach = tensor.sum = lambda *_: torch.zeros(())
    return tensor


def replaced(name, make):
    return lambda upload: {**upload, name: make(upload[name].clone())}


REFUSED = {
    "sparse": (replaced(WEIGHT, lambda t: t.to_sparse()), "must be a dense tensor, found one in the layout"),
    "sparse rows": (replaced("5.weight", lambda t: t.to_sparse_csr()), "must be a dense tensor, found one in"),
    "quantized": (
        replaced(WEIGHT, lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        "must hold plain numbers, found a quantized tensor",
    ),
    "meta": (replaced(WEIGHT, lambda t: t.to("meta")), "holds no numbers: it is on the device meta"),
    "nested": (
        replaced(WEIGHT, lambda t: torch.nested.nested_tensor(list(t))),
        "must be a dense tensor, found a",
    ),
    "a tensor of another class": (replaced(WEIGHT, lambda t: t.as_subclass(OwnTensor)), "tensor, found OwnTensor"),
    "numpy's": (replaced(WEIGHT, lambda t: t.numpy()), "must be a tensor, found ndarray"),
    "None": (replaced(WEIGHT, lambda t: None), "must be a tensor, found NoneType"),
    "a liar for a tensor": (replaced(WEIGHT, lambda t: Liar()), "must be a tensor, found Liar"),
    "more than its memory holds": (replaced(WEIGHT, nothing_behind), "reaches beyond the end of its memory"),
    "another shape": (
        replaced(WEIGHT, lambda t: t[..., None]),
        r"must have shape \(4, 1, 3, 3\), found",
    ),
    "complex": (replaced(WEIGHT, lambda t: t.to(torch.complex64)), r"must be torch.float32, found torch.complex64"),
    "NaN": (replaced(WEIGHT, lambda t: t * math.nan), "holds NaN or infinity"),
    "a negative variance": (replaced(VARIANCE, lambda t: t - 2), "holds a negative variance"),
    "fewer batches than before": (replaced(COUNT, lambda t: t - 1), r"must count 0 to \d+, found -1"),
    "batches without end": (
        replaced(COUNT, lambda t: t + 2**63 - 1),
        r"must count 0 to 20000, found 922337",
    ),
    "batches before the beginning": (
        replaced(COUNT, lambda t: t - 2**63),
        r"must count 0 to \d+, found -92233",
    ),
    "a key that is no text": (lambda upload: {**upload, 7: upload[WEIGHT]}, "names must be text, found 7"),
    "a key of another class": (lambda u: {OwnText(n): t for n, t in u.items()}, "names must be text, found a OwnText"),
    "a tuple as a key": (lambda upload: {**upload, ((("deep",),),): 1}, "names must be text, found a tuple"),
    "a long name": (lambda upload: {**upload, "\n" * 900_000: 1}, "do not belong to the model"),
    "hidden items": (Sneaky, "must be a mapping from names to tensors, found Sneaky"),
    "another mapping": (MappingProxyType, "must be a mapping from names to tensors, found mappingproxy"),
    "a chain of mappings": (ChainMap, "must be a mapping from names to tensors, found ChainMap"),
    "a liar": (lambda upload: Liar(), "must be a mapping from names to tensors, found Liar"),
    "a list": (list, "must be a mapping from names to tensors, found list"),
    "a class": (lambda upload: OrderedDict, "must be a mapping from names to tensors, found type"),
    "nothing": (lambda upload: None, "must be a mapping from names to tensors, found NoneType"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_a_short_reason(what) -> None:
    network = tiny_cnn()
    make, reason = REFUSED[what]
    answer = admit(make(state_of(network)), 20, Template.of(state_of(network), network))
    assert isinstance(answer, Rejected)
    with pytest.raises(ValueError, match=reason):
        raise ValueError(answer.reason)
    assert len(answer.reason) < 200
    assert answer.reason.isprintable()


def shifted(tensor):
    """The same numbers in the middle of other memory."""
    memory = torch.zeros(tensor.numel() + 7)
    memory[3 : 3 + tensor.numel()] = tensor.reshape(-1)
    return memory[3 : 3 + tensor.numel()].view(tensor.shape)


def in_inference(tensor):
    with torch.inference_mode():
        return tensor.clone()


MADE_CANONICAL = {
    "with a gradient": replaced(WEIGHT, lambda t: t.requires_grad_()),
    "with a graph": replaced(WEIGHT, lambda t: t.requires_grad_() * 1.0),
    "a parameter": replaced(WEIGHT, lambda t: nn.Parameter(t)),
    "with methods of its own": replaced(WEIGHT, with_own_methods),
    "a window": replaced(WEIGHT, shifted),
    "columns first": replaced("5.weight", lambda t: t.T.contiguous().T),
    "made for inference": replaced(WEIGHT, in_inference),
    "in numpy's memory": replaced(WEIGHT, lambda t: torch.from_numpy(t.numpy())),
    "with its sign in a bit": replaced(WEIGHT, lambda t: torch._neg_view(-t)),
    "channels_last": replaced(WEIGHT, lambda t: t.to(memory_format=torch.channels_last)),
    "an OrderedDict in another order": lambda upload: OrderedDict(reversed(upload.items())),
}


def assert_canonical(upload, model, others=()) -> None:
    assert type(upload) is dict
    assert list(upload) == list(model)
    seen = {tensor.untyped_storage().data_ptr() for other in (model, *others) for tensor in other.values()}
    for name, tensor in upload.items():
        assert type(tensor) is Tensor
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
        assert not tensor.is_inference()
        assert vars(tensor) == {}
        assert (tensor.shape, tensor.dtype, tensor.device) == (
            model[name].shape,
            model[name].dtype,
            model[name].device,
        )
        assert tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        assert tensor.untyped_storage().data_ptr() not in seen


@pytest.mark.parametrize("what", MADE_CANONICAL)
def test_it_passes_in_canonical_form(what) -> None:
    network = tiny_cnn()
    model = state_of(network)
    honest = {name: tensor + 1 for name, tensor in model.items()}
    answer = admit(MADE_CANONICAL[what](honest), 20, Template.of(model, network))
    assert isinstance(answer, Admitted)
    assert_canonical(answer.upload, model)
    assert all(torch.equal(answer.upload[name], tensor) for name, tensor in honest.items())


def test_a_canonical_upload_is_not_copied() -> None:
    network = tiny_cnn()
    upload = state_of(network)
    assert admit(upload, 20, Template.of(state_of(network), network)).upload is upload


def test_no_two_uploads_and_no_two_tensors_share_memory(make_round) -> None:
    round = make_round(clients=4)
    one = dict(round.uploads[0])
    twice = {**round.uploads[1], "1.bias": round.uploads[1]["1.weight"]}
    screened = screen(replace(round, uploads=[one, dict(one), round.global_model, twice]))
    assert not screened.rejected
    for position, upload in enumerate(screened.uploads):
        assert_canonical(upload, round.global_model, screened.uploads[:position])
    for tensor in screened.uploads[3].values():
        tensor.zero_()
    assert float(screened.uploads[0][WEIGHT].abs().max()) > 0


@pytest.mark.parametrize("number", [1e160, -1e39, 3.5e38])
def test_numbers_beyond_float32_are_refused_in_a_float64_model(number) -> None:
    model = state_of(tiny_cnn().double())
    upload = {**model, WEIGHT: model[WEIGHT].clone()}
    upload[WEIGHT].view(-1)[5] = number
    assert "beyond float32's largest" in upload_problem(upload, model)
    upload[WEIGHT].fill_(3.4e38)
    assert upload_problem(upload, model) is None


def frozen_network() -> nn.Module:
    network = tiny_cnn()
    network[0].requires_grad_(False)
    return network


@pytest.mark.parametrize("number", [1000.0, math.nan])
def test_a_frozen_tensor_keeps_the_global_models_value_whatever_is_sent(make_round, number) -> None:
    round = make_round(network=frozen_network())
    uploads = [{**upload, "0.bias": round.global_model["0.bias"].clone()} for upload in round.uploads]
    uploads = [{**upload, WEIGHT: round.global_model[WEIGHT].clone()} for upload in uploads]
    uploads[2][WEIGHT].mul_(number)
    screened = pass_gate(make_round(network=frozen_network(), uploads=uploads))
    assert not screened.round.rejected
    assert all(torch.equal(upload[WEIGHT], round.global_model[WEIGHT]) for upload in screened.round.uploads)
    assert screened.notes == ["client 102 changed 1 frozen tensors, the first is '0.weight': they stay as they were"]


def test_where_all_is_frozen_nothing_counts_as_frozen(make_round) -> None:
    round = make_round(network=tiny_cnn().requires_grad_(False))
    assert all(a[WEIGHT] is b[WEIGHT] for a, b in zip(screen(round).uploads, round.uploads, strict=True))


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, rows):
        return self.second(self.first(rows))


def test_a_tied_weight_is_one_value_or_no_upload(make_round) -> None:
    network = Tied()
    honest = [copy.deepcopy(OrderedDict(network.state_dict())) for _ in range(2)]
    apart = {**state_of(network), "second.weight": torch.zeros(4, 4)}
    screened = screen(make_round(clients=3, network=network, uploads=[*honest, apart]))
    assert screened.rejected == {
        102: "'second.weight' and 'first.weight' are one tensor in the network, found two values"
    }
    assert all(upload["second.weight"] is upload["first.weight"] for upload in screened.uploads)


@pytest.mark.parametrize("rule", sorted(registry.defenses()))
def test_rules_that_answer_with_a_model_give_a_tied_weight_one_value(make_round, rule) -> None:
    if rule.startswith("gradcam") or rule == "deepsight":
        pytest.skip("answers with weights and needs a network for images, or refuses this one")
    network = Tied()
    params = {
        "fltrust": {f"local_{key}": 1 for key in ("epochs", "learning_rate", "batch_size")}
        | {"local_optimizer": "sgd"},
        "flcert": {"groups": 2},
    }
    uploads = []
    for number in range(6):
        torch.manual_seed(number)
        moved = copy.deepcopy(network)
        for parameter in moved.parameters():
            parameter.data += 0.1 + 0.05 * torch.randn(parameter.shape) * (20 if number == 5 else 1)
        uploads.append(state_of(moved))
    data = [(torch.randn(20, 4), torch.arange(20) % 4)]
    round = screen(make_round(network=network, uploads=uploads, test_data=data))
    cls = registry.defenses()[rule]
    defense = cls(cls.Settings(**params.get(rule, {})))
    for _ in range(2):  # the second time with what the rule carries on
        verdict = defense.judge(round)
        if verdict.model is not None:
            assert torch.equal(verdict.model["first.weight"], verdict.model["second.weight"])
            assert not torch.equal(verdict.model["first.weight"], round.global_model["first.weight"])


def test_whole_numbers_that_count_no_batches_are_the_global_models(make_round) -> None:
    """A table of positions with one wrong entry would stop the network."""
    network = nn.Linear(2, 2)
    network.register_buffer("positions", torch.tensor([3, 4]))
    model = state_of(network)
    for other in (-1, 5, 2**53 + 1, -(2**63)):
        answer = admit({**model, "positions": torch.tensor([5, other])}, 1, Template.of(model, network))
        assert torch.equal(answer.upload["positions"], model["positions"])
        assert answer.replaced == ("positions",)


@pytest.mark.parametrize("known", [True, False], ids=["with the network", "without it"])
def test_a_mask_with_infinity_or_nan_stays_the_global_models(known) -> None:
    network = nn.Linear(2, 2)
    network.register_buffer("mask", torch.tensor([0.0, float("-inf"), float("nan")]))
    model = state_of(network)
    template = Template.of(model, network if known else None)
    honest = admit({name: tensor.clone() for name, tensor in model.items()}, 1, template)
    assert honest.replaced == ()
    for mask in ([float("-inf")] * 2 + [float("nan")], [5.0, 1e30, 0.0], [0.0, 7.0, float("nan")], [float("nan")] * 3):
        answer = admit({**model, "mask": torch.tensor(mask)}, 1, template)
        assert answer.replaced == ("mask",)
        assert torch.equal(answer.upload["mask"][:2], model["mask"][:2])
        assert answer.upload["mask"][2].isnan()


def test_a_claim_that_is_cut_excuses_no_count_of_batches(make_round) -> None:
    round = make_round()
    uploads = [dict(upload) for upload in round.uploads]
    for upload, count in zip(uploads, [0, 11_000, 12_001, 65_000, 65_001, 0], strict=True):
        upload[COUNT] = torch.tensor(count)
    screened = screen(make_round(uploads=uploads, samples=[10, 11, 12, 1e9, 1e9, 13]))
    assert list(screened.rejected) == [102, 104]  # 5 times the median of 12, and then of 13, are 60 and 65 samples
