import byzfl
import numpy as np
import pytest
import torch

from fedml_gradcam_ae.attacks.ipm import InnerProductManipulation
from fedml_gradcam_ae.attacks.sign_flip import SignFlip
from flat import flat_round, update, updates


@pytest.mark.parametrize("epsilon", [0.1, 2.0])
def test_inner_product_manipulation_is_byzfls(make_round, epsilon) -> None:
    benign = np.random.default_rng(5).normal(size=(4, 30))
    round = flat_round(make_round, np.vstack([benign, np.ones((2, 30))]), start=-0.2)
    attack = InnerProductManipulation(InnerProductManipulation.Settings(epsilon=epsilon))
    for poisoned in attack.poison(round, [4, 5]):
        expected = byzfl.InnerProductManipulation(tau=epsilon)(benign)
        assert update(round, poisoned) == pytest.approx(expected, rel=1e-9)


def test_sign_flip_turns_each_attackers_own_update_around(make_round) -> None:
    """ByzFL's is of the mean: with one honest vector the two agree."""
    drawn = np.random.default_rng(6).normal(size=(4, 30))
    round = flat_round(make_round, drawn, start=0.4)
    for i, poisoned in zip([0, 3], SignFlip(SignFlip.Settings()).poison(round, [0, 3]), strict=True):
        assert update(round, poisoned) == pytest.approx(byzfl.SignFlipping()(drawn[i : i + 1]), rel=1e-9)


def test_sign_flip_scales_and_leaves_the_statistics_honest(make_round) -> None:
    round = make_round()
    uploads = [{**u, "1.running_mean": torch.full((4,), float(i))} for i, u in enumerate(round.uploads)]
    round = make_round(uploads=uploads)
    (poisoned,) = SignFlip(SignFlip.Settings(scale=3.0)).poison(round, [2])
    assert update(round, poisoned) == pytest.approx(-3 * updates(round, [2])[0], rel=1e-4, abs=1e-7)
    assert poisoned["1.running_mean"].tolist() == [2.0] * 4
