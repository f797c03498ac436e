import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import fit_autoencoder
from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.defenses.gradcam_ae.scored import Scored
from fedml_gradcam_ae.heatmaps import grad_cam, min_max
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from tiny import digits, state_of, tiny_cnn


def defense(**params) -> GradCAMAE:
    quick = {"profile": "paper", "probe_size": "native", "map_size": "native", "epochs": 30}
    return GradCAMAE(GradCAMAE.Settings(**{**quick, **params}))


def test_a_verdict_is_the_equations_one_after_the_other(make_round) -> None:
    """The whole of section 5 written out again, with numpy for the statistics."""
    round = make_round(number=4)
    verdict = defense(alpha=0.5).judge(round)

    image, _ = draw_images(round.test_data, 1, seeded_generator(0, 0, 4))
    maps = min_max(grad_cam(round.network, round.uploads, image, "2"))
    flat = maps.flatten(1)
    model = fit_autoencoder(flat, 128, 30, 1e-3, 1e-5, "sigmoid", seeded_generator(0, 1, 4))
    errors = np.abs((flat - model(flat)).numpy()).mean(1)
    threshold = errors.mean() + 0.5 * errors.std()
    flags = errors > threshold
    weights = np.where(flags, 0, round.samples) / np.array(round.samples)[~flags].sum()

    assert verdict.scores == pytest.approx(errors.tolist(), rel=1e-5)
    assert verdict.threshold == pytest.approx(threshold, rel=1e-5)
    assert verdict.flagged == flags.tolist() == verdict.excluded
    assert verdict.weights == pytest.approx(weights.tolist())
    assert 0 < sum(flags) < 6
    assert set(verdict.seconds) == {"heat_maps", "autoencoder"}
    assert verdict.evidence["heat_maps"].shape == verdict.evidence["reconstructions"].shape == (6, 1, 8, 8)


def test_the_profiles_sizes_are_the_authors(make_round) -> None:
    verdict = GradCAMAE(GradCAMAE.Settings(profile="paper", epochs=1)).judge(make_round(clients=2))
    assert verdict.evidence["heat_maps"].shape == (2, 1, 224, 224)


def test_deterministic_for_a_seed_and_without_the_global_random_state(make_round) -> None:
    state = torch.get_rng_state()
    first = defense().judge(make_round()).scores
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert defense().judge(make_round()).scores == first
    assert defense(seed=1).judge(make_round()).scores != first


def test_the_judgment_does_not_depend_on_what_came_before(make_round) -> None:
    """A server that is started again judges round 2 as one that ran through."""
    through = defense()
    through.judge(make_round(number=1))
    assert through.judge(make_round(number=2)).scores == defense().judge(make_round(number=2)).scores


def test_several_probe_images_and_labels(make_round) -> None:
    verdict = defense(probe_images=3, target_class="label", map_scaling="none").judge(make_round())
    assert verdict.evidence["heat_maps"].shape == (6, 3, 8, 8)
    assert len(set(verdict.scores)) == 6


class Judgments(GradCAMAE):
    """Flags as a test wants them: only the vote is the defense's own."""

    def flag_next(self, *clients):
        self.next = clients

    def score(self, round):
        scores = [float(client - 100 in self.next) for client in round.client_ids]
        maps = torch.zeros(len(scores), 1, 4, 4)
        return Scored(scores, 0.5, maps, maps, {})


def vote(make_round, rounds, **params):
    """Judge rounds 1, 2, ... with these positions flagged; the positions left out in each."""
    judge = Judgments(GradCAMAE.Settings(profile="paper", probe_size="native", map_size="native", **params))
    left_out = []
    for number, flagged in enumerate(rounds, 1):
        judge.flag_next(*flagged)
        verdict = judge.judge(make_round(number=number))
        left_out.append({i for i, out in enumerate(verdict.excluded) if out})
    return left_out


def test_between_votes_the_rounds_own_flags_decide_and_every_third_round_the_vote(make_round) -> None:
    rounds = [{0, 1}, {1}, {2}, {3}, {3, 4}, set()]
    assert vote(make_round, rounds) == [{0, 1}, {1}, {1}, {3}, {3, 4}, {3}]


def test_one_flag_in_three_is_forgiven_at_the_vote(make_round) -> None:
    assert vote(make_round, [set(), set(), {0}])[2] == set()


def test_a_permanent_removal_starts_with_a_vote_and_never_ends(make_round) -> None:
    rounds = [{1}, {1}, set(), set(), {2}]
    assert vote(make_round, rounds)[3:] == [set(), {2}]
    assert vote(make_round, rounds, permanent=True)[3:] == [{1}, {1, 2}]


def test_a_removed_client_is_not_judged_any_more_and_told_why(make_round) -> None:
    judge = defense(permanent=True, alpha=0)
    for number in (1, 2, 3):
        verdict = judge.judge(make_round(number=number))
    gone = [client for client, out in zip(range(100, 106), verdict.excluded, strict=True) if out]
    assert gone
    later = judge.judge(make_round(number=4))
    assert [i + 100 for i, score in enumerate(later.scores) if score == math.inf] == gone
    assert later.reasons == dict.fromkeys(gone, "voted out for good in round 3")
    assert sum(later.weights) == pytest.approx(1)


def test_an_unusable_upload_earns_a_flag_for_the_vote(make_round) -> None:
    judge = defense(alpha=10)
    for number in (1, 2):
        judge.judge(replace(make_round().only([1, 2, 3]), number=number, rejected={100: "NaN"}))
    verdict = judge.judge(make_round(number=3))
    assert verdict.excluded == [True, False, False, False, False, False]


def test_state_survives_a_restart(make_round) -> None:
    before = Judgments(GradCAMAE.Settings(profile="paper", probe_size="native", map_size="native", permanent=True))
    before.flag_next(1)
    for number in (1, 2, 3):
        before.judge(make_round(number=number))
    after = Judgments(before.settings)
    after.restore(before.state())
    after.flag_next(2)
    assert after.judge(make_round(number=4)).excluded == [False, True, True, False, False, False]


def test_an_upload_with_maps_that_are_not_finite_is_left_out_also_at_a_vote(make_round) -> None:
    uploads = [*make_round().uploads]
    uploads[3] = {name: t * 1e30 if t.is_floating_point() else t for name, t in uploads[3].items()}
    verdict = defense(alpha=10).judge(make_round(uploads=uploads, number=3))
    assert verdict.excluded == verdict.flagged == [False, False, False, True, False, False]
    assert verdict.scores[3] == math.inf
    assert verdict.reasons == {103: "its heat maps hold NaN or infinity"}


def test_when_everybody_is_left_out_no_weight_remains(make_round) -> None:
    uploads = [{name: t * 1e30 if t.is_floating_point() else t for name, t in u.items()} for u in make_round().uploads]
    verdict = defense().judge(make_round(uploads=uploads))
    assert verdict.excluded == [True] * 6
    assert verdict.weights == [0] * 6


def test_one_client_alone_is_kept(make_round) -> None:
    assert defense().judge(make_round(clients=1)).weights == [1]


def test_an_empty_test_set_is_refused(make_round) -> None:
    images, labels = digits()
    empty = DataLoader(TensorDataset(images[:0], labels[:0]))
    with pytest.raises(ValueError, match=r"probe images are drawn from the server's test data.*empty"):
        defense().prepare(tiny_cnn(), empty)


def test_maps_under_4_x_4_are_refused_with_what_to_change(make_round) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    network(torch.rand(1, 1, 8, 8))
    data = make_round().test_data
    with pytest.raises(ValueError, match=r"layer '1' are 2 x 2 on images of 8 x 8 pixels.*Raise probe_size"):
        defense().prepare(network, data)
    with pytest.raises(ValueError, match="no module 'conv9'"):
        defense(target_layer="conv9").prepare(tiny_cnn(), data)


def test_the_defense_does_not_touch_the_uploads_or_the_network(make_round) -> None:
    round = make_round()
    before = [{name: tensor.clone() for name, tensor in upload.items()} for upload in round.uploads]
    network = state_of(round.network)
    defense().judge(round)
    for now, then in zip([*round.uploads, round.network.state_dict()], [*before, network], strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)
