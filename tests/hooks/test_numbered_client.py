"""A client under the plug-in, without a network: which round its uploads name, and when it ends."""

import fedml
import pytest
import torch
from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.hooks.cross_silo.client import NumberedClient
from fedml_gradcam_ae.hooks.cross_silo.numbering import process_name, whole_number
from tiny import fedml_args

ONLINE, UPLOAD, INIT, SYNC, CHECK, FINISH = 5, 3, 1, 2, 6, 7


class Trainer:
    def __init__(self):
        self.trained = []

    def update_dataset(self, index): ...

    def update_model(self, model): ...

    def train(self, round_idx):
        self.trained.append(round_idx)
        return {"w": torch.zeros(1)}, 5


class Manager:
    def __init__(self):
        self.sent, self.stopped = [], False

    def add_observer(self, observer): ...

    def send_message(self, message):
        self.sent.append(message)

    def stop_receive_message(self):
        self.stopped = True


@pytest.fixture
def client(monkeypatch):
    def init_manager(self):
        self.com_manager = Manager()

    monkeypatch.setattr(NumberedClient, "_init_manager", init_manager)
    monkeypatch.setattr(fedml.core.mlops.MLOpsStore, "mlops_args", fedml_args(using_mlops=False))
    args = fedml_args(training_type="cross_silo", scenario="horizontal", client_id_list="[2]", comm_round=2)
    return NumberedClient(args, Trainer(), None, 2, 3, "GRPC")


def receive(client, kind, **parameters):
    """What the client sends in answer to a message."""
    message = Message(kind, 0, 2)
    for key, value in {"model_params": {}, "client_idx": "1", **parameters}.items():
        message.add_params(key, value)
    before = len(client.com_manager.sent)
    {
        INIT: client.handle_message_init,
        SYNC: client.handle_message_receive_model_from_server,
        CHECK: client.handle_message_check_status,
        FINISH: client.handle_message_finish,
    }[kind](message)
    return client.com_manager.sent[before:]


def test_an_upload_names_the_round_of_its_model(client) -> None:
    (upload,) = receive(client, INIT, round_number=4, rounds=6)
    assert (upload.get_type(), upload.get("round_number")) == (UPLOAD, 4)
    for number in (5, 5, 6, 2):  # a round may come twice, and a server may have gone back
        (upload,) = receive(client, SYNC, round_number=number, rounds=6)
        assert upload.get("round_number") == number
    assert client.trainer_dist_adapter.trained == [0, 4, 4, 5, 1]
    assert not client.com_manager.stopped


def test_the_final_model_ends_it(client) -> None:
    receive(client, SYNC, round_number=3, rounds=3)  # its own YAML says two rounds
    (goodbye,) = receive(client, SYNC, round_number=4, rounds=3)
    assert goodbye.get("client_status") == "FINISHED"
    assert client.com_manager.stopped


def test_a_second_first_model_is_trained_on_as_well(client) -> None:
    """FedML's client would leave a server that was started again waiting."""
    for _ in range(2):
        (upload,) = receive(client, INIT, round_number=1, rounds=2)
        assert upload.get("round_number") == 1


@pytest.mark.parametrize("strange", [None, "1", 1.0, True, 0, -1, 2**31, [1]])
def test_without_numbers_it_counts_as_fedmls_own(client, strange) -> None:
    for kind in (INIT, SYNC):
        (upload,) = receive(client, kind, round_number=strange, rounds=strange)
        assert upload.get_type() == UPLOAD
        assert upload.get("round_number") is None
    (goodbye,) = receive(client, SYNC)
    assert goodbye.get("client_status") == "FINISHED"


def test_its_process_has_a_name(client) -> None:
    first, second = (receive(client, CHECK)[0].get("client_process") for _ in range(2))
    assert first == second == process_name(first)


def test_only_sensible_names_and_numbers_count() -> None:
    assert [whole_number(value) for value in (1, 2**31 - 1)] == [1, 2**31 - 1]
    for value in (0, 2**31, 10**5000, True, 1.0, "1", None, [], torch.ones(2)):
        assert whole_number(value) is None
    for value in ("", "a" * 65, 5, None, b"a", [], torch.ones(2)):
        assert process_name(value) is None
