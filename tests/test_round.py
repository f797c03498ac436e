import math
from dataclasses import replace

import pytest
import torch

from fedml_gradcam_ae import Round, Verdict
from fedml_gradcam_ae.contract.round import sample_weights
from fedml_gradcam_ae.contract.screening import screen
from fedml_gradcam_ae.defenses.krum import Krum
from tiny import tiny_cnn


def test_weights_of_the_kept_are_renormalized_sample_shares() -> None:
    # Eq. (18) by hand: samples 10, 30, 60 without the second: 10 / 70 and 60 / 70.
    assert sample_weights([10, 30, 60], [False, True, False]) == pytest.approx([1 / 7, 0, 6 / 7])


def test_weights_are_all_zero_when_everybody_is_excluded() -> None:
    assert sample_weights([10, 30], [True, True]) == [0, 0]


def test_usable_uploads_pass_the_screen_untouched(make_round) -> None:
    round = make_round()
    screened = screen(round)
    assert screened.rejected == {}
    assert all(a is b for a, b in zip(screened.uploads, round.uploads, strict=True))


def broken(upload, kind):
    upload = dict(upload)
    name = "0.weight"
    if kind == "NaN":
        upload[name] = upload[name].clone()
        upload[name].view(-1)[3] = math.nan
    elif kind == "infinity":
        upload[name] = torch.full_like(upload[name], math.inf)
    elif kind == "infinity in a buffer":
        upload["1.running_var"] = torch.full_like(upload["1.running_var"], math.inf)
    elif kind == "missing key":
        del upload[name]
    elif kind == "extra key":
        upload["head.weight"] = torch.zeros(2)
    elif kind == "another shape":
        upload[name] = upload[name][:2]
    elif kind == "another dtype":
        upload[name] = upload[name].double()
    elif kind == "no tensor":
        upload[name] = [1.0]
    elif kind == "empty":
        upload = {}
    elif kind == "no mapping":
        return [1, 2, 3]
    return upload


BROKEN = {
    "NaN": "'0.weight' holds NaN or infinity",
    "infinity": "'0.weight' holds NaN or infinity",
    "infinity in a buffer": "'1.running_var' holds NaN or infinity",
    "missing key": "1 of 9 tensors are missing, the first is '0.weight'",
    "extra key": "1 tensors do not belong to the model, the first is 'head.weight'",
    "another shape": r"'0.weight' must have shape \(4, 1, 3, 3\), found \(2, 1, 3, 3\)",
    "another dtype": "'0.weight' must be torch.float32, found torch.float64",
    "no tensor": "'0.weight' must be a tensor, found list",
    "empty": "9 of 9 tensors are missing",
    "no mapping": "must be a mapping from names to tensors, found list",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_upload_is_taken_out_and_named(make_round, kind) -> None:
    round = make_round()
    uploads = [*round.uploads]
    uploads[2] = broken(uploads[2], kind)
    screened = screen(make_round(uploads=uploads))
    assert list(screened.client_ids) == [100, 101, 103, 104, 105]
    assert list(screened.samples) == [10, 11, 13, 14, 15]
    assert list(screened.rejected) == [102]
    with pytest.raises(ValueError, match=BROKEN[kind]):
        raise ValueError(screened.rejected[102])


def test_large_weights_whose_sum_overflows_are_no_fault(make_round) -> None:
    uploads = [dict(upload) for upload in make_round().uploads]
    uploads[2]["0.weight"] = torch.full_like(uploads[2]["0.weight"], 3e38)
    uploads[3]["0.weight"] = (
        torch.tensor([math.inf, -math.inf])
        .repeat(uploads[3]["0.weight"].numel() // 2)
        .view(uploads[3]["0.weight"].shape)
    )
    assert list(screen(make_round(uploads=uploads)).rejected) == [103]


@pytest.mark.parametrize("samples", [0, -5, math.nan, math.inf, -math.inf, None, "many"])
def test_a_nonsensical_sample_count_is_taken_out_and_named(make_round, samples) -> None:
    screened = screen(make_round(samples=[10, samples, 10, 10, 10, 10]))
    assert list(screened.client_ids) == [100, 102, 103, 104, 105]
    assert (
        screened.rejected[101] == f"the claimed number of samples must be a positive finite number, found {samples!r}"
    )


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"samples": [10.0]}, ValueError, r"found lengths {'client_ids': 3, 'uploads': 3, 'samples': 1}\."),
        ({"client_ids": [1, 2, 3, 4]}, ValueError, r"found lengths {'client_ids': 4, 'uploads': 3, 'samples': 3}\."),
        ({"uploads": 7}, TypeError, r"A Round's uploads must be a list with one entry per client, found 7\."),
        ({"client_ids": {1, 2, 3}}, TypeError, r"client_ids must be a list with one entry per client, found a set\."),
        ({"client_ids": "abc"}, TypeError, r"client_ids must be a list with one entry per client, found 'abc'\."),
    ],
)
def test_a_round_whose_lists_do_not_fit_is_refused(make_round, fields, error, words) -> None:
    given = make_round(3)
    with pytest.raises(error, match=words):
        replace(given, **fields)


@pytest.mark.parametrize("rule", [lambda round: round.updates, lambda round: round.bounded, Krum().judge])
def test_a_tensor_that_an_upload_lacks_is_named_with_its_client(make_round, rule) -> None:
    uploads = [dict(upload) for upload in make_round(4).uploads]
    del uploads[2]["0.weight"], uploads[2]["1.running_mean"]
    with pytest.raises(ValueError, match=r"upload of client 102 .* lacks 2 of 9, the first is '0\.weight'\."):
        rule(make_round(4, uploads=uploads))
    uploads[2] = [1.0]
    with pytest.raises(ValueError, match=r"upload of client 102 must be a state dict, found list\."):
        rule(make_round(4, uploads=uploads))


def test_parameters_that_the_global_model_lacks_are_not_federated(make_round) -> None:
    round = make_round(4)
    rest = {name: tensor for name, tensor in round.global_model.items() if not name.startswith("5.")}
    part = replace(round, global_model=rest)
    assert part.parameters == [name for name in round.parameters if not name.startswith("5.")]
    assert part.updates.size == sum(rest[name].numel() for name in part.parameters)
    with pytest.raises(ValueError, match=r"has none of its 6 parameters, the first of which is '0\.weight'\."):
        assert replace(round, global_model={"1.running_mean": rest["1.running_mean"]}).updates


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"scores": 1.0}, "scores .* found 1.0"),
        ({"scores": torch.tensor(1.0)}, "scores .* found a Tensor"),
        ({"flagged": "no"}, "flagged .* found 'no'"),
        ({"excluded": {0: True}}, "excluded .* found a dict"),
        ({"weights": 0.5, "model": None}, "weights .* found 0.5"),
    ],
)
def test_a_verdict_takes_lists(fields, found) -> None:
    with pytest.raises(TypeError, match=f"A Verdict's {found}".replace(" .* ", " must be a list .*, ")):
        Verdict(**{"model": {}, **fields})


def test_a_verdict_has_weights_or_a_model() -> None:
    with pytest.raises(ValueError, match="either weights or a model"):
        Verdict(flagged=[False], excluded=[False])
    with pytest.raises(ValueError, match=r"one entry per client, found lengths"):
        Verdict(flagged=[False, True], excluded=[False], weights=[1.0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weights": [0.5, math.nan]}, r"found nan for the client at position 1\."),
        ({"weights": [math.inf, 0.0]}, r"found inf for the client at position 0\."),
        ({"weights": [1.5, -0.5]}, r"at least 0, found -0\.5 for the client at position 1\."),
        ({"weights": [0.5, 0.6]}, r"must sum to 1, or all be 0, found the sum 1\.1\."),
        (
            {"weights": [0.5, 0.5], "excluded": [False, True]},
            r"excluded client the weight 0, found 0\.5 .* 1\.",
        ),
        ({"weights": [0.5, 0.5], "scores": [1.0]}, r"one entry per client, found lengths .*'scores': 1"),
        ({"model": {}, "excluded": [False], "scores": [1.0, 2.0]}, r"one entry per client"),
    ],
)
def test_a_verdict_that_contradicts_itself_is_refused(fields, words) -> None:
    with pytest.raises(ValueError, match=words):
        Verdict(**fields)


def test_sums_of_float32_weights_and_verdicts_that_keep_nobody_are_fine() -> None:
    thirds = torch.full((3,), 1 / 3, dtype=torch.float32)
    assert Verdict(weights=thirds.tolist()).clients == 3
    assert Verdict(weights=[0.0, 0.0], excluded=[True, True]).clients == 2
    assert Verdict(model={}).clients is None


def test_rounds_and_verdicts_are_made_by_keyword_and_compared_by_identity(make_round) -> None:
    with pytest.raises(TypeError):
        Verdict([True], [True], [0.0])
    with pytest.raises(TypeError):
        Round(1, [], [], [], {}, tiny_cnn(), [])
    one, two = make_round(2), make_round(2)
    assert one == one
    assert one != two
    assert len({one, two}) == 2


def test_other_uploads_in_a_round_of_mixtures_are_no_mixtures(make_round) -> None:
    round = make_round(3)
    mixed = round.mixed(torch.eye(3) / 2)
    other = replace(mixed, uploads=round.uploads)
    torch.testing.assert_close(other.updates.gram, round.updates.gram)
    torch.testing.assert_close(mixed.updates.gram, round.updates.gram / 4)


def test_a_part_of_a_round_with_replaced_updates_keeps_them(make_round) -> None:
    round = make_round(4)
    mixing = torch.tensor([[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5], [0.25] * 4], dtype=torch.float64)
    over = round.mixed(mixing)
    part = over.only([3, 0])
    assert len(part.updates) == 2
    chosen = [3, 0]
    torch.testing.assert_close(part.updates.gram, over.updates.gram[chosen][:, chosen])
    blocks = torch.cat(list(part.updates.blocks()), dim=1)
    torch.testing.assert_close(blocks, (mixing @ torch.cat(list(round.updates.blocks()), dim=1))[chosen])
    torch.testing.assert_close(part.updates.dot(round.global_model), over.updates.dot(round.global_model)[chosen])
    columns = torch.arange(0, round.updates.size, 7)
    torch.testing.assert_close(part.updates.sample(columns), over.updates.sample(columns)[chosen])
    again = part.only([1])
    torch.testing.assert_close(again.updates.gram, over.updates.gram[:1, :1])


def test_bounding_reaches_the_mixtures_of_a_part(make_round) -> None:
    uploads = [dict(upload) for upload in make_round(4).uploads]
    uploads[1]["5.bias"] = uploads[1]["5.bias"] + 1e6
    round = make_round(4, uploads=uploads)
    mixing = torch.full((4, 4), 0.25, dtype=torch.float64)
    part = round.mixed(mixing).only([2])
    mean = part.bounded.updates.columnwise(lambda values: values[0])["5.bias"]
    expected = torch.stack([upload["5.bias"] for upload in round.bounded.uploads]).mean(dim=0)
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)
    assert part.bounded.bounded is part.bounded


def test_mixtures_of_mixtures_are_mixtures_of_the_uploads(make_round) -> None:
    round = make_round(5)
    halves, means = torch.eye(5, dtype=torch.float64) / 2, torch.full((3, 5), 0.2, dtype=torch.float64)
    first = round.mixed(halves)
    second = first.mixed(means, client_ids=["a", "b", "c"], samples=[1, 1, 1]).mixed(torch.eye(3, dtype=torch.float64))
    given = [id(upload) for upload in [*round.uploads, round.global_model]]
    assert all(id(upload) in given for mixture in second.uploads for upload in mixture.uploads)
    uploads = torch.stack([upload["5.bias"] for upload in round.uploads])
    expected = (uploads.mean(dim=0) + round.global_model["5.bias"]) / 2
    for found in (second.uploads[1], second.bounded.uploads[1]):
        torch.testing.assert_close(found["5.bias"], expected)
    chosen = first.only([4, 1]).mixed(torch.eye(2, dtype=torch.float64) / 2)  # mixtures of some of the mixtures
    expected = (uploads[4] + 3 * round.global_model["5.bias"]) / 4
    torch.testing.assert_close(chosen.uploads[0]["5.bias"], expected)
