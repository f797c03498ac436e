"""Krum on heat maps: Captum's maps of each model loaded alone, and distances by scipy."""

import math

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from scipy.spatial.distance import cdist

from fedml_gradcam_ae.contract.round import TooFewUploads
from fedml_gradcam_ae.defenses.gradcam_krum import GradCAMKrum
from fedml_gradcam_ae.heatmaps import layer_cam, min_max

PARAMS = {"probe_images": 3, "probe_size": "native", "map_size": "native", "malicious": 1}


def judge(round, **params):
    return GradCAMKrum(GradCAMKrum.Settings(**{**PARAMS, **params})).judge(round)


def test_the_scores_are_krums_on_captums_maps(make_round) -> None:
    round = make_round(clients=7)
    defense = GradCAMKrum(GradCAMKrum.Settings(**PARAMS, target_class="label"))
    verdict = defense.judge(round)
    images, labels = defense.probe.draw(round.network, round.test_data, round.number)
    maps = []
    for upload in round.uploads:
        round.network.load_state_dict(upload)
        cam = LayerGradCam(
            round.network, round.network.get_submodule(defense.probe.prepare(round.network, round.test_data))
        )
        maps.append(
            min_max(cam.attribute(images, target=labels, relu_attributions=True).detach())[:, 0].flatten().numpy()
        )
    distances = cdist(maps, maps) ** 2
    expected = [np.sort(np.delete(row, i))[: 7 - 1 - 2].sum() for i, row in enumerate(distances)]
    assert verdict.scores == pytest.approx(expected, rel=1e-4)
    assert verdict.weights.index(1.0) == int(np.argmin(expected))
    assert [i for i, bad in enumerate(verdict.flagged) if bad] == [int(np.argmax(expected))]
    assert sum(verdict.excluded) == 6


def test_an_upload_whose_maps_overflow_is_never_followed(make_round) -> None:
    round = make_round()
    broken = {n: t * 1e30 if t.is_floating_point() else t for n, t in round.uploads[0].items()}
    round = make_round(uploads=[broken, *round.uploads[1:]])
    verdict = judge(round)
    assert verdict.scores[0] == math.inf
    assert verdict.flagged[0]
    assert verdict.weights[0] == 0
    assert verdict.reasons == {round.client_ids[0]: "its heat maps hold NaN or infinity"}
    nobody = judge(make_round(uploads=[broken] * 6))
    assert nobody.weights == [0.0] * 6
    assert all(nobody.flagged)


@pytest.mark.parametrize("clients", [1, 2, 3])
def test_few_uploads_are_no_error_with_the_usual_share(make_round, clients) -> None:
    verdict = judge(make_round(clients=clients), malicious=0.2)
    assert sum(verdict.weights) == 1
    assert sum(verdict.flagged) <= clients - 1


def test_with_fewer_uploads_than_two_f_and_three_there_is_no_verdict(make_round) -> None:
    with pytest.raises(TooFewUploads, match="7 usable uploads are needed, found 6"):
        judge(make_round(clients=6), malicious=2)


def test_too_many_assumed_malicious_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1 here"):
        GradCAMKrum.Settings(malicious=2).check_clients(6)


def test_the_choice_is_by_maps_and_not_by_weights(make_round) -> None:
    """A client that scales all its logits' biases alike has the same maps as before, and far-off weights."""
    round = make_round()
    plain = judge(round, target_class="label")
    moved = [dict(upload) for upload in round.uploads]
    moved[2]["5.bias"] = moved[2]["5.bias"] + 1000
    shifted = judge(make_round(uploads=moved), target_class="label")
    assert shifted.scores == pytest.approx(plain.scores, rel=1e-3)
    assert torch.isfinite(torch.tensor(shifted.scores)).all()


def test_layer_cam_maps_give_other_scores(make_round) -> None:
    round = make_round(clients=7)
    defense = GradCAMKrum(GradCAMKrum.Settings(**PARAMS, map_method="layercam"))
    verdict = defense.judge(round)
    images, _ = defense.probe.draw(round.network, round.test_data, round.number)
    layer = defense.probe.prepare(round.network, round.test_data)
    maps = min_max(layer_cam(round.network, round.uploads, images, layer)).flatten(1).numpy()
    distances = cdist(maps, maps) ** 2
    expected = [np.sort(np.delete(row, i))[: 7 - 1 - 2].sum() for i, row in enumerate(distances)]
    assert verdict.scores == pytest.approx(expected, rel=1e-4)
    assert verdict.scores != pytest.approx(judge(round).scores, rel=1e-2)
