"""DeepSight: leave out the clusters of clients that trained on few classes, as clients with a backdoor do.

Source: Rieger, Nguyen, Miettinen and Sadeghi, "DeepSight: Mitigating Backdoor Attacks in Federated Learning Through
Deep Model Inspection", NDSS 2022, arXiv 2201.00763. The paper gives no parameters of HDBSCAN. Common implementations
have clusters of at least five clients and look at three neighbors; here four clients are enough, a client and its three
neighbors, so that four attackers are a cluster. Some implementations count outliers as one cluster and reject them all,
others judge each alone. Here each outlier is a cluster of its own throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.defenses.shared.clipped_mean import clipped_mean
from fedml_gradcam_ae.defenses.shared.output_layer import output_layer
from fedml_gradcam_ae.maths.cosine import cosine_matrix
from fedml_gradcam_ae.maths.order_statistics import median
from fedml_gradcam_ae.networks.evaluating import answer, constants, evaluating
from fedml_gradcam_ae.networks.images import draw_images, seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings, count_classes
from fedml_gradcam_ae.networks.parallel import on_each_upload

SUSPICIOUS = 1 / 3  # a cluster is kept if fewer of its clients are suspicious
_NEIGHBORS = 3  # HDBSCAN's min_samples, without the point itself
_TINY = 1e-6  # added to the global model's probabilities before a division by them
_BATCH = 256  # noise inputs that a network is given at a time


@register_defense("deepsight")
class DeepSight(Defense):
    """The clipped mean of the clusters of clients of which fewer than a third changed only a few classes.

    The output layer's update has an energy for each class: the absolute changes of the class's weights and bias, summed
    and squared (NEUP, normalized to the sum 1). A client whose number of large energies (threshold exceedings) is at
    most half of the median number is suspicious. Clients are clustered by HDBSCAN three times: by these energies, by
    the ratios of their class probabilities to the global model's on noise inputs (DDif, with several sets of noise),
    and by the cosine distance of the updates of the output layer's biases. The share of clusterings in which two
    clients are in different clusters is the distance for a last HDBSCAN. Its clusters of which at least a third of the
    clients are suspicious are left out. The others' updates are clipped to the median length of all and averaged
    without weights.

    The network must end in a layer with a weight of one row per class and a bias.

    Example:
        The energies of two clients, of which the second changed one class of three:

        >>> import torch
        >>> from fedml_gradcam_ae.defenses.deepsight import energies, threshold_exceedings
        >>> center = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
        >>> honest = {"weight": torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]), "bias": torch.zeros(3)}
        >>> narrow = {"weight": torch.zeros(3, 2), "bias": torch.tensor([0.0, 5.0, 0.0])}
        >>> found = energies([honest, narrow], center, "weight", "bias")
        >>> found
        tensor([[0.3333, 0.3333, 0.3333],
                [0.0000, 1.0000, 0.0000]], dtype=torch.float64)
        >>> threshold_exceedings(found).tolist()
        [3, 1]
    """

    class Settings(OutputSettings, DefenseSettings):
        """The noise inputs, of which the paper has three sets of 20,000 each, and the size of clusters."""

        noise_inputs: int = Field(
            default=1000,
            ge=1,
            description="noise images of each set that every upload is run on; the paper's 20000 take 20 times as long",
        )
        noise_sets: int = Field(default=3, ge=1, description="sets of noise images, each with a clustering of its own")
        min_cluster_size: int = Field(
            default=4,
            ge=2,
            description="the fewest clients that HDBSCAN takes for a cluster; attackers who are fewer are not found",
        )
        seed: int = Field(default=0, ge=0, description="draws the noise images, anew each round")

    settings: Settings

    def __init__(self, settings: DeepSight.Settings | None = None) -> None:
        super().__init__(settings)
        self._images: Tensor | None = None  # one test image, whose shape the noise has

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check the network's output layer and learn the shape of its images.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Raises:
            ValueError: if the test data hold no image, or the output layer has not one row per class and a bias.
        """
        try:
            images, _ = draw_images(test_data, 1, seeded_generator(self.settings.seed), labeled=False)
        except ValueError as error:
            raise ValueError(f"The noise images have the shape of the server's test data. {error}") from None
        images = images.to(next(network.parameters()))
        classes = count_classes(Classifier(network, self.settings.logits), images)
        trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        weight_and_bias(network, trained or [name for name, _ in network.named_parameters()], classes)
        self._images = images

    @override
    def judge(self, round: Round) -> Verdict:
        """Cluster the clients, leave out suspicious clusters, and clip and average the kept updates.

        The score is the share of suspicious clients in the client's cluster.

        Raises:
            ValueError: on the first call, if `prepare` does.
        """
        start = perf_counter()
        if self._images is None:
            self.prepare(round.network, round.test_data)
        assert self._images is not None
        weight, bias = output_layer(round.network, round.parameters)
        found = energies(round.uploads, round.global_model, weight, bias)
        noise = partial(self._noise, self._images, round.number)
        network = Classifier(round.network, self.settings.logits)
        ratios = division_differences(network, round.global_model, round.uploads, noise, self.settings.noise_sets)
        ran = perf_counter()

        gram = Updates(round.uploads, round.global_model, [bias]).gram
        smallest = self.settings.min_cluster_size
        by_ratios = [different_clusters(cluster(_distances(each), smallest)) for each in ratios]
        distances = torch.stack(
            [
                different_clusters(cluster(_distances(found), smallest)),
                torch.stack(by_ratios).mean(dim=0),
                different_clusters(cluster(1 - cosine_matrix(gram).cpu(), smallest)),
            ]
        ).mean(dim=0)
        exceedings = threshold_exceedings(found).double().cpu()
        suspicious = (exceedings <= median(exceedings) / 2).double()
        together = 1 - different_clusters(cluster(distances, smallest, one_is_enough=True))
        shares = (together @ suspicious) / together.sum(dim=1)
        excluded = (shares >= SUSPICIOUS).tolist()
        answer: dict[str, Any] = {"weights": [0.0] * len(excluded)}
        if not all(excluded):
            answer = {"model": clipped_mean(round, excluded, float(median(round.updates.squared_norms.sqrt())))}
        return Verdict(
            flagged=excluded,
            excluded=excluded,
            scores=shares.tolist(),
            threshold=SUSPICIOUS,
            seconds={"noise_inputs": ran - start},
            **answer,
        )

    def _noise(self, like: Tensor, number: int, index: int) -> Iterable[Tensor]:
        """Yield the batches of a set of noise images, uniform in [0, 1).

        Args:
            like: (1, channels, height, width), an image.
            number: the round.
            index: the set.
        """
        generator, left = seeded_generator(self.settings.seed, number, index), self.settings.noise_inputs
        while left > 0:
            size = min(_BATCH, left)
            left -= size
            yield torch.rand(size, *like.shape[1:], generator=generator, dtype=torch.float32).to(like)


def weight_and_bias(network: nn.Module, parameters: Sequence[str], classes: int) -> tuple[str, str]:
    """Return the names of the output layer's weight and bias.

    Args:
        network: the architecture.
        parameters: the names of the trainable parameters.
        classes: the number of classes.

    Raises:
        ValueError: if the last trained layer has not a weight of one row per class and a bias.
    """
    names, tensors = output_layer(network, parameters), dict(network.named_parameters())
    shapes = [tuple(tensors[name].shape) for name in names]
    # A network with one output for two classes has one row for both.
    rows = 1 if classes == 2 and shapes[-1] == (1,) else classes
    if len(shapes) != 2 or len(shapes[0]) < 2 or shapes[0][0] != rows or shapes[1] != (rows,):
        found = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
        raise ValueError(
            f"deepsight compares the changes of each class in the output layer, so the last trained layer must have a "
            f"weight of one row per class and a bias (nn.Linear with bias=True): ({classes}, ...) and ({classes},) "
            f"here; found {found}."
        )
    return names[0], names[1]


def energies(uploads: Sequence[Upload], center: Upload, weight: str, bias: str) -> Tensor:
    """Return the normalized update energies (NEUP) of the output layer's classes, (clients, classes), float64.

    Args:
        uploads: the clients' state dicts.
        center: the global model.
        weight: the name of the output layer's weight, (classes, ...); a single row is that of both of two classes.
        bias: the name of its bias, (classes,).

    Returns:
        The energies (|db_c| + sum |dW_c|)^2, divided by their sum over classes; all 0 where nothing changed.
    """
    rows = []
    for upload in uploads:
        of_weights = (upload[weight].double() - center[weight].double()).abs().flatten(1).sum(dim=1)
        changes = of_weights + (upload[bias].double() - center[bias].double()).abs()
        changes = changes.expand(max(2, len(changes)))
        squares = (changes / changes.max().clamp(min=torch.finfo(torch.float64).tiny)).square()
        rows.append(squares / squares.sum().clamp(min=1))
    return torch.stack(rows)


def threshold_exceedings(found: Tensor) -> Tensor:
    """Return how many classes of a client have a large energy: above max(0.01, 1 / classes) of its largest.

    Args:
        found: (clients, classes), the energies.

    Returns:
        (clients,), int64.
    """
    share = max(0.01, 1 / found.shape[1])
    return (found > share * found.amax(dim=1, keepdim=True)).sum(dim=1)


def division_differences(
    network: nn.Module, center: Upload, uploads: Sequence[Upload], noise: Callable[[int], Iterable[Tensor]], sets: int
) -> Tensor:
    """Return the mean ratios of the uploads' class probabilities to the global model's on noise (DDif).

    Args:
        network: a classifier; it is run in eval mode on each model's tensors.
        center: the global model.
        uploads: the clients' state dicts.
        noise: a function from the number of a set to its batches of images.
        sets: the number of sets of noise.

    Returns:
        (sets, clients, classes), float64, on the CPU; the ratios are at most 1e6, as those that are not finite become.
    """
    with evaluating(network), torch.no_grad():
        expected = [[_probabilities(network, center, images) for images in noise(index)] for index in range(sets)]

        def ratios(own: nn.Module, upload: Upload) -> Tensor:
            found = []
            for index in range(sets):
                total, count = torch.zeros(expected[0][0].shape[1], dtype=torch.float64), 0
                for images, usual in zip(noise(index), expected[index], strict=True):
                    ratio = _probabilities(own, upload, images) / (usual + _TINY)
                    total += ratio.nan_to_num(1 / _TINY, posinf=1 / _TINY).clamp(max=1 / _TINY).sum(dim=0)
                    count += len(images)
                found.append(total / count)
            return torch.stack(found)

        return torch.stack(on_each_upload(network, uploads, ratios), dim=1)


def _probabilities(network: nn.Module, model: Upload, images: Tensor) -> Tensor:
    tensors = constants(model, images.device)
    scores: Tensor = answer(network, tensors, images)
    return scores.double().softmax(dim=1).cpu()


def cluster(distances: Tensor, smallest: int, one_is_enough: bool = False) -> list[int]:
    """Return each client's cluster by HDBSCAN; every outlier has a number below 0 of its own.

    Args:
        distances: (clients, clients), symmetric.
        smallest: the fewest clients of a cluster.
        one_is_enough: whether all clients may form one cluster.

    Example:
        >>> positions = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 5.0, 5.1, 5.2, 5.3, 5.4, 99.0])
        >>> cluster((positions - positions[:, None]).abs(), smallest=5)
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, -11]
    """
    from sklearn.cluster import HDBSCAN

    clients = len(distances)
    if clients == 1:
        return [0]
    clustering = HDBSCAN(
        metric="precomputed",
        min_cluster_size=min(smallest, clients),
        min_samples=min(_NEIGHBORS + 1, clients),  # scikit-learn counts the point itself
        allow_single_cluster=one_is_enough,
        copy=True,
    )
    labels = clustering.fit(((distances + distances.T) / 2).fill_diagonal_(0).cpu().numpy()).labels_
    return [int(label) if label >= 0 else -1 - position for position, label in enumerate(labels)]


def different_clusters(labels: Sequence[int]) -> Tensor:
    """Return 1 for each pair of clients in different clusters and 0 for the others, (clients, clients), float64.

    Args:
        labels: each client's cluster.
    """
    numbers = torch.tensor(labels)
    return (numbers != numbers[:, None]).double()


def _distances(points: Tensor) -> Tensor:
    return torch.cdist(points.cpu(), points.cpu(), compute_mode="donot_use_mm_for_euclid_dist")
