"""Work on each upload: the same as one after the other, and nothing left behind."""

import threading

import pytest
import torch
from torch import nn

from fedml_gradcam_ae.networks.evaluating import evaluating
from fedml_gradcam_ae.networks.parallel import on_each_upload
from patience import PATIENCE


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def threads_elsewhere() -> tuple[int, int]:
    """Here, and in a thread that starts now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return torch.get_num_threads(), found[0]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_results_are_in_the_order_of_the_uploads(number) -> None:
    uploads = [{"number": torch.tensor(float(upload))} for upload in range(number)]
    assert on_each_upload(network(), uploads, lambda _, upload: upload["number"].item()) == list(range(number))


@pytest.mark.usefixtures("two_threads")
def test_two_work_at_a_time_on_modules_of_their_own_and_the_same_tensors() -> None:
    judge = network().eval()
    together = threading.Barrier(2, timeout=PATIENCE)  # broken if one waits for the other to be done

    def work(own: nn.Module, upload: dict[str, torch.Tensor]) -> tuple[int, bool, bool, bool]:
        with evaluating(own):
            own.train(bool(upload["train"]))
            together.wait()
            kept = own.training == bool(upload["train"])
        same = all(a is b for a, b in zip(tensors_of(own), tensors_of(judge), strict=True))
        return torch.get_num_threads(), torch.is_grad_enabled(), kept, same

    with torch.no_grad():
        found = on_each_upload(judge, [{"train": torch.tensor(mode)} for mode in (True, False)], work)
    assert found == [(1, False, True, True)] * 2
    assert not judge.training
    assert threads_elsewhere() == (2, 2)


@pytest.mark.usefixtures("two_threads")
def test_an_error_is_raised_and_the_threads_are_as_before() -> None:
    def work(_: nn.Module, upload: dict[str, torch.Tensor]) -> None:
        raise KeyError(next(iter(upload)))

    with pytest.raises(KeyError, match="first"):
        on_each_upload(network(), [{"first": torch.zeros(1)}, {"second": torch.zeros(1)}], work)
    assert threads_elsewhere() == (2, 2)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kept", [threading.Lock(), torch.ones(1, requires_grad=True) * 2])
def test_a_network_that_cannot_be_copied_serves_all_uploads_itself(kept) -> None:
    judge = network()
    judge.kept = kept
    assert on_each_upload(judge, [{}, {}, {}], lambda used, _: used) == [judge] * 3
