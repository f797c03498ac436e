"""scikit-learn's 1,797 handwritten digits (E. Alpaydin and C. Kaynak, 1998): 8 x 8 gray pixels, no download needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark.data.registry import Source, Split, Wanted, register_data

# The fraction of each class that is the test set.
TEST_SHARE = 0.2


@register_data("digits")
def digits(data: Wanted) -> Source:
    """Open scikit-learn's digits, scaled to [0, 1] and not normalized (mean 0, standard deviation 1).

    A fifth of each class is the test set.

    Args:
        data: the settings.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    images = interpolate(small, size=(data.size, data.size), mode="bilinear", align_corners=False)
    labels = torch.tensor(bunch.target)
    train, test = train_test_split(range(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=0)

    def split(chosen: list[int]) -> Split:
        def read(positions: Sequence[int]) -> Tensor:
            return images[[chosen[position] for position in positions]]

        return Split(labels[chosen], read)

    return Source(split(train), split(test), [str(digit) for digit in range(10)], mean=[0.0], std=[1.0])
