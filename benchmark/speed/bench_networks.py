"""Training images per second of each network, with channels outermost in memory and innermost (channels_last).

    OMP_NUM_THREADS=1 python -m pytest benchmark/speed/bench_networks.py --benchmark-columns=min,median,max,rounds

The timed region is one client's local epoch as FedML's simulator runs it:

    start
        FedML's trainer loads the global weights
        and trains for one epoch on 256 images of 3 x 32 x 32 pixels, batches of 32, Adam
        get_model_params
    stop

Images per second are 256 / median. Compare medians within one run only: machines differ, and so does their load.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.data import DataLoader, TensorDataset

from benchmark.models import networks

# The number of training images of an epoch.
IMAGES = 256
REPETITIONS = 5


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("name", sorted(networks()))
def test_a_local_epoch(benchmark: BenchmarkFixture, name: str, channels_last: bool) -> None:
    """Time one client's local epoch."""
    torch.manual_seed(0)
    network = networks()[name].build(classes=10, channels=3, size=32)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    batches = DataLoader(TensorDataset(torch.rand(IMAGES, 3, 32, 32), torch.randint(0, 10, (IMAGES,))), batch_size=32)
    args = SimpleNamespace(client_optimizer="adam", learning_rate=0.001, weight_decay=0.0, epochs=1)
    trainer = ModelTrainerCLS(network, args)
    trainer.set_id(0)
    start = copy.deepcopy(trainer.get_model_params())

    def epoch() -> None:
        trainer.set_model_params(start)
        trainer.train(batches, torch.device("cpu"), args)
        trainer.get_model_params()

    benchmark.pedantic(epoch, rounds=REPETITIONS, warmup_rounds=1)  # type: ignore[no-untyped-call]
