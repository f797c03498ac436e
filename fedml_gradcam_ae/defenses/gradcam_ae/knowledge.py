"""Evidence of knowledge: with few clients, an upload must still tell the classes of the server's test images apart.

Source: this project's own; docs/robust.md. The other kinds of evidence compare clients with one another, which shows
little among a few of them. This one compares each upload with what the global model can do.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.bounding import lower_median
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Observed
from fedml_gradcam_ae.heatmaps import draw_probe
from fedml_gradcam_ae.networks.evaluating import answer, constants, evaluating
from fedml_gradcam_ae.networks.parallel import on_each_upload

MOST_CLIENTS = 10  # With more clients, the other kinds of evidence find as much, and each client costs a forward pass.
IMAGES = 32
# The figures were measured on development seeds; see docs/research/robust.md.
KNOWS = 0.3  # Below this discrimination, too little has been learned to expect anything of the uploads.
LEAST_SHARE = 1 / 3  # Benign clients kept at least 0.48 of it, with two classes each.
LARGEST = 1e30  # Class scores are clamped to this.


class Knowledge(Kind):
    """The share of the discrimination that an upload lost, in units of its threshold.

    The discrimination that is expected is the global model's, or the uploads' lower median, where that is larger: in
    the first round the global model may know nothing.
    """

    name = "knowledge"
    reason = "it no longer tells the classes of the server's test images apart"

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.models is not None and observed.models.discriminations is not None

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        models = observed.models
        assert models is not None
        before_and_now = models.discriminations
        assert before_and_now is not None
        return lost_shares(before_and_now[1:][models.judged], before_and_now[0]) / (1 - LEAST_SHARE)


def lost_shares(uploads: Tensor, before: Tensor) -> Tensor:
    """Return the share of the expected discrimination that each upload lost, at least 0.

    Args:
        uploads: (clients,), the uploads' discriminations.
        before: (), the global model's.

    Returns:
        (clients,); zeros where the expected discrimination is below `KNOWS`.

    Example:
        >>> lost_shares(torch.tensor([0.5, 0.1, 0.6]), torch.tensor(0.5))
        tensor([0.0000, 0.8000, 0.0000])
    """
    expected = torch.maximum(before, lower_median(uploads[:, None])[0])
    return (1 - uploads / expected).clamp(min=0) if expected >= KNOWS else torch.zeros_like(uploads)


def discrimination(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how well a model tells the classes of images apart, whatever its preferences among the classes.

    The mean over images of the cosine between the image's class scores and its class, with the scores' means over the
    images, and over the classes, subtracted. A client with few classes prefers these for every image, but still tells
    all of them apart; weights that were not learned do not.

    Args:
        scores: (images, classes).
        labels: (images,), int64.

    Returns:
        (), float64, in [-1, 1]; about 0 if the scores say nothing of the labels.

    Example:
        >>> labels = torch.tensor([0, 1, 2])
        >>> [f"{discrimination(scores, labels):.2f}" for scores in (torch.eye(3), torch.tensor([[0.0, 0.0, 9.0]] * 3))]
        ['0.82', '0.00']
    """
    centered = scores.double().nan_to_num(0.0, LARGEST, -LARGEST).clamp(-LARGEST, LARGEST)
    centered = centered - centered.mean(dim=1, keepdim=True)
    centered = centered - centered.mean(dim=0)
    own = centered.gather(1, labels[:, None])[:, 0]
    lengths = torch.linalg.vector_norm(centered, dim=1)
    return torch.where(lengths > 0, own / lengths.clamp(min=1e-300), 0.0).mean()


def discriminations_of(round: Round, classes: int, seed: int) -> Tensor | None:
    """Return the discriminations of the global model and of the uploads on some of the server's test images.

    Args:
        round: the round; its network returns logits.
        classes: the number of classes.
        seed: of the draw of the images.

    Returns:
        (1 + clients,), float64, on the CPU, the global model's first; None with more than `MOST_CLIENTS` clients, and
        where the test data have no labels.
    """
    if len(round.uploads) > MOST_CLIENTS:
        return None
    network = round.network
    try:
        images, labels = draw_probe(network, round.test_data, IMAGES, seed, round.number, classes, labeled=True)
    except ValueError:  # no image has a label
        return None

    def one(own: torch.nn.Module, model: Upload) -> Tensor:
        with torch.no_grad():
            tensors = constants(model, images.device)
            return discrimination(answer(own, tensors, images), labels).cpu()

    with evaluating(network):
        return torch.stack(on_each_upload(network, [round.global_model, *round.uploads], one))
