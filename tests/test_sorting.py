import numpy as np
import pytest
import torch

from fedml_gradcam_ae.maths.order_statistics import median, middle_rows


@pytest.mark.parametrize("clients", range(1, 42))
def test_the_middle_of_every_column_is_numpys_with_ties_and_without(clients) -> None:
    generator = torch.Generator().manual_seed(clients)
    distinct = torch.randn(clients, 200, generator=generator)
    tied = torch.randint(0, 3, (clients, 200), generator=generator).double()
    for values in (distinct, tied):
        before = values.clone()
        for cut in range((clients + 1) // 2):
            expected = np.sort(values.numpy(), axis=0)[cut : clients - cut]
            assert np.array_equal(np.sort(middle_rows(values, cut).numpy(), axis=0), expected)
        assert torch.equal(values, before)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 256, 257, 300])
def test_median_is_numpys(count) -> None:
    values = torch.randn(count, 3, generator=torch.Generator().manual_seed(count))
    assert np.allclose(median(values), np.median(values, axis=0))
    assert np.allclose(median(values, dim=1), np.median(values, axis=1))
    assert np.allclose(median(values[:, :1].expand(-1, 2).reshape(count, 2, 1)), np.median(values[:, 0]))
