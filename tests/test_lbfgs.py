import numpy as np
import pytest
import torch

from fedml_gradcam_ae.maths.lbfgs import inner_products, lbfgs_coefficients, lbfgs_product


def bfgs_matrix(steps, changes) -> np.ndarray:
    """The BFGS recursion itself, from sigma I, one pair after the other."""
    last = steps[-1] @ changes[-1] / (steps[-1] @ steps[-1])
    matrix = last * np.eye(len(steps[0]))
    for s, y in zip(steps, changes, strict=True):
        bs = matrix @ s
        matrix = matrix - np.outer(bs, bs) / (s @ bs) + np.outer(y, y) / (y @ s)
    return matrix


def convex(d: int, pairs: int, seed: int = 0):
    """A Hessian, steps, and the changes of the gradient that go with them."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    hessian = root @ root.T / d + np.eye(d)
    steps = rng.normal(size=(pairs, d))
    return hessian, steps, steps @ hessian


@pytest.mark.parametrize("pairs", [1, 2, 5, 10])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_compact_form_is_the_bfgs_recursion(pairs, sign) -> None:
    _, steps, changes = convex(12, pairs)
    changes = sign * changes
    vector = np.random.default_rng(9).normal(size=12)
    found = lbfgs_product(torch.tensor(steps), torch.tensor(changes), torch.tensor(vector))
    np.testing.assert_allclose(found.numpy(), bfgs_matrix(steps, changes) @ vector, rtol=1e-8, atol=1e-10)


def test_pairs_without_a_common_hessian_follow_the_recursion_as_well() -> None:
    """Nothing in the compact form needs Y = S H: noise of stochastic training is in real pairs."""
    rng = np.random.default_rng(3)
    _, steps, changes = convex(9, 4)
    changes = changes + 0.3 * rng.normal(size=changes.shape)
    vector = rng.normal(size=9)
    found = lbfgs_product(torch.tensor(steps), torch.tensor(changes), torch.tensor(vector))
    np.testing.assert_allclose(found.numpy(), bfgs_matrix(steps, changes) @ vector, rtol=1e-8)


def test_the_newest_step_is_answered_with_its_own_change() -> None:
    _, steps, changes = convex(30, 6)
    found = lbfgs_product(torch.tensor(steps), torch.tensor(changes), torch.tensor(steps[-1]))
    np.testing.assert_allclose(found.numpy(), changes[-1], rtol=1e-8)


def test_conjugate_steps_through_the_whole_space_give_a_quadratics_hessian() -> None:
    hessian, _, _ = convex(5, 1)
    steps = np.linalg.eigh(hessian)[1].T
    vector = np.random.default_rng(1).normal(size=5)
    found = lbfgs_product(torch.tensor(steps), torch.tensor(steps @ hessian), torch.tensor(vector))
    np.testing.assert_allclose(found.numpy(), hessian @ vector, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1e8])
def test_neither_the_size_of_the_steps_nor_that_of_the_gradients_matters(scale) -> None:
    _, steps, changes = convex(12, 6)
    vector = np.random.default_rng(2).normal(size=12)
    expected = bfgs_matrix(steps, changes) @ vector
    found = lbfgs_product(torch.tensor(steps) * scale, torch.tensor(changes) * scale, torch.tensor(vector))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)
    found = lbfgs_product(torch.tensor(steps), torch.tensor(changes) * scale, torch.tensor(vector))
    np.testing.assert_allclose(found.numpy(), scale * expected, rtol=1e-7)


def test_float32_vectors_lose_no_more_than_their_own_digits() -> None:
    _, steps, changes = convex(200, 5)
    steps, changes = torch.tensor(steps).float(), torch.tensor(changes).float()
    vector = torch.randn(200, generator=torch.Generator().manual_seed(0))
    expected = bfgs_matrix(steps.double().numpy(), changes.double().numpy()) @ vector.double().numpy()
    np.testing.assert_allclose(lbfgs_product(steps, changes, vector).numpy(), expected, rtol=1e-7, atol=1e-9)


def test_several_combinations_of_the_rows_at_once() -> None:
    _, steps, changes = convex(12, 3)
    basis = torch.tensor(np.concatenate([steps, changes, np.ones((1, 12))]))
    wanted = torch.randn(7, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = lbfgs_coefficients(basis @ basis.T, 3, wanted).T @ basis
    np.testing.assert_allclose(found.numpy(), wanted.T.numpy() @ basis.numpy() @ bfgs_matrix(steps, changes), rtol=1e-8)


def test_a_step_that_came_twice_is_a_step_that_came_once() -> None:
    _, steps, changes = convex(12, 3)
    vector = np.random.default_rng(2).normal(size=12)
    twice = [0, 1, 1, 2]
    found = lbfgs_product(torch.tensor(steps[twice]), torch.tensor(changes[twice]), torch.tensor(vector))
    np.testing.assert_allclose(found.numpy(), bfgs_matrix(steps, changes) @ vector, rtol=1e-6)


@pytest.mark.parametrize("case", ["no step", "no change", "infinite", "huge"])
def test_without_usable_curvature_nothing_changes(case) -> None:
    _, steps, changes = convex(6, 2)
    steps, changes, vector = torch.tensor(steps), torch.tensor(changes), torch.ones(6, dtype=torch.float64)
    if case == "no step":
        steps[0] = 0
    elif case == "no change":
        changes[-1] = 0
    elif case == "infinite":
        changes *= 1e200
    else:
        found = lbfgs_product(steps, changes * 1e30, vector)
        assert torch.isfinite(found).all()
        return
    gram = inner_products([*steps, *changes, vector])
    assert torch.equal(lbfgs_coefficients(gram, 2, torch.eye(5).double()), torch.zeros(5, 5).double())


def test_inner_products_are_those_of_numpy_across_pieces() -> None:
    vectors = torch.randn(3, 70_001, generator=torch.Generator().manual_seed(0))
    expected = vectors.double().numpy() @ vectors.double().numpy().T
    np.testing.assert_allclose(inner_products(list(vectors)).numpy(), expected, rtol=1e-12)
