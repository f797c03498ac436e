"""The server's rounds over a transport made of two lists: what it sends, and how it ends."""

import queue
import threading
from collections import OrderedDict

import fedml
import pytest
import torch
from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.hooks.cross_silo.server import DependableServer
from patience import PATIENCE
from tiny import fedml_args

ONLINE, UPLOAD, INIT, SYNC, CHECK, FINISH = 5, 3, 1, 2, 6, 7


class Aggregator:
    """Adds 1 to the model in every round."""

    network = test_global = train_data_local_dict = None

    def __init__(self):
        self.model = OrderedDict(w=torch.zeros(2))
        self.rounds = []
        self.fails = False

    def get_global_model_params(self):
        return self.model

    def set_global_model_params(self, model):
        self.model = model

    def client_selection(self, index, clients, number):
        return clients

    def data_silo_selection(self, index, total, number):
        return range(number)

    def aggregate_uploads(self, number, uploads, clients, local_data):
        if self.fails:
            raise ValueError("this defense gives up")
        self.rounds.append((number, {client: samples for client, (samples, _) in uploads.items()}))
        self.model["w"] += 1  # in place, as FedML does
        return list(uploads)

    def test_on_server_for_all_clients(self, index): ...

    def assess_contribution(self): ...


class Transport:
    """Keeps what is sent; a client may be stuck, or out of reach."""

    def __init__(self):
        self.sent, self.stuck, self.gone = queue.Queue(), {}, set()
        self.inbox = queue.Queue()

    def send_message(self, message):
        receiver = message.get_receiver_id()
        if receiver in self.gone:
            raise ConnectionError("refused")
        if receiver in self.stuck:
            self.stuck[receiver].wait(PATIENCE)
        self.sent.put((receiver, message.get_type(), message.get("round_number"), message.get("model_params")))

    def add_observer(self, observer):
        self.observer = observer

    def handle_receive_message(self):
        self.observer.receive_message(0, Message(0, 0, 0))
        while (message := self.inbox.get(timeout=PATIENCE)) is not None:
            self.observer.receive_message(message.get_type(), message)

    def stop_receive_message(self):
        self.inbox.put(None)


class Run:
    """A server in a thread of its own."""

    def __init__(self, clients=2, rounds=2, **flat):
        flat = {"client_num_in_total": clients, "client_num_per_round": clients, "comm_round": rounds, **flat}
        self.args = fedml_args(training_type="cross_silo", client_id_list=str(list(range(1, clients + 1))), **flat)
        self.transport, self.aggregator, self.error = Transport(), Aggregator(), None
        self.server = DependableServer(self.args, self.aggregator, None, 0, clients, "GRPC")
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self.server.run()
        except Exception as error:
            self.error = error

    def say(self, kind, client, **parameters):
        message = Message(kind, client, 0)
        for key, value in parameters.items():
            message.add_params(key, value)
        self.transport.inbox.put(message)

    def online(self, *clients, **more):
        for client in clients:
            self.say(ONLINE, client, client_status="ONLINE", **more)

    def finished(self, *clients):
        for client in clients:
            self.say(ONLINE, client, client_status="FINISHED")

    def upload(self, *clients, samples=1.0, **more):
        for client in clients:
            self.say(UPLOAD, client, model_params={}, num_samples=samples, **more)

    def sent(self, count):
        """The next messages, by client."""
        found = sorted((self.next_sent() for _ in range(count)), key=lambda each: each[0])
        return [(receiver, kind, number) for receiver, kind, number, _ in found]

    def next_sent(self):
        try:
            return self.transport.sent.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"nothing was sent; the server's thread ended with {self.error!r}") from self.error

    def end(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.error


@pytest.fixture
def run(monkeypatch, plugin):
    runs = []

    def init_manager(self):
        self.com_manager = runs[-1].transport
        self.com_manager.add_observer(self)

    def start(**keywords):
        made = Run.__new__(Run)
        runs.append(made)
        made.__init__(**keywords)
        return made

    monkeypatch.setattr(DependableServer, "_init_manager", init_manager)
    monkeypatch.setattr(fedml.core.mlops.MLOpsStore, "mlops_args", fedml_args(using_mlops=False))
    yield start
    for made in runs:
        made.transport.inbox.put(None)
        for event in made.transport.stuck.values():
            event.set()
        made.thread.join(PATIENCE)
        assert not made.thread.is_alive()


def test_two_rounds(run) -> None:
    made = run()
    made.online(1, 2)
    assert made.sent(2) == [(1, INIT, 1), (2, INIT, 1)]
    made.upload(1, 2)
    assert made.sent(2) == [(1, SYNC, 2), (2, SYNC, 2)]
    made.upload(2, 1)
    assert made.sent(2) == [(1, SYNC, 3), (2, SYNC, 3)]
    made.finished(1, 2)
    assert made.end() is None
    assert made.aggregator.rounds == [(1, {1: 1.0, 2: 1.0}), (2, {1: 1.0, 2: 1.0})]


def test_a_model_that_leaves_late_is_still_that_of_its_round(run) -> None:
    """FedML changes the global model in place, and a slow client's copy has not left yet."""
    made = run(client_timeout=0.3)
    made.transport.stuck[2] = threading.Event()
    made.online(1, 2)
    assert made.sent(1) == [(1, INIT, 1)]
    made.upload(1)
    assert made.sent(1) == [(1, SYNC, 2)]
    made.transport.stuck[2].set()
    _, _, number, model = made.transport.sent.get(timeout=PATIENCE)
    assert number == 1
    assert model["w"].tolist() == [0, 0]


def test_a_stuck_client_holds_up_nobody(run) -> None:
    made = run(rounds=5, client_timeout=0.2)
    made.transport.stuck[2] = threading.Event()
    made.online(1, 2)
    for number in range(1, 6):
        assert made.sent(1)[0][2] == number
        made.upload(1)
    assert made.sent(1)[0][2] == 6
    made.finished(1)
    assert made.end() is None
    assert [number for number, _ in made.aggregator.rounds] == [1, 2, 3, 4, 5]


def test_a_lost_goodbye_does_not_hang_the_server(run, caplog) -> None:
    made = run(rounds=1, end_timeout=0.2)
    made.online(1, 2)
    made.upload(1, 2)
    made.finished(1)
    assert made.end() is None
    assert "ending, although clients 2 have not reported that they ended" in caplog.text


def test_a_client_that_is_gone_at_the_end_is_not_waited_for(run) -> None:
    made = run(rounds=1)
    made.online(1, 2)
    made.sent(2)
    made.transport.gone.add(2)
    made.upload(1, 2)
    made.finished(1)
    assert made.end() is None


@pytest.mark.parametrize("late", [False, True])
def test_a_defense_that_fails_ends_the_server(run, late) -> None:
    made = run(client_timeout=0.2)
    made.aggregator.fails = True
    made.online(1, 2)
    made.upload(1, *([] if late else [2]))
    assert str(made.end()) == "this defense gives up"


def test_the_minimum_holds_when_clients_end(run, caplog) -> None:
    made = run(clients=3, rounds=1, minimum_clients=2)
    made.online(1, 2, 3)
    made.sent(3)
    made.upload(1)
    made.finished(2, 3)
    made.online(3)
    assert made.sent(1) == [(3, INIT, 1)]
    made.upload(3)
    made.sent(2)
    made.finished(1, 3)
    assert made.end() is None
    assert made.aggregator.rounds == [(1, {1: 1.0, 3: 1.0})]
    text = "round 1: client 3: fewer than minimum_clients, 2, can still answer: waiting for it to be started again"
    assert text in caplog.text


def test_when_all_clients_have_ended_the_server_stops(run, caplog) -> None:
    made = run(rounds=5, minimum_clients=2)
    made.online(1, 2)
    made.upload(1, 2)
    made.upload(1)
    made.finished(1, 2)
    assert made.end() is None
    assert "all clients have ended: stopping after round 1 of 5" in caplog.text


@pytest.mark.parametrize(
    "sender", [99, -1, 0, None, "1", [1], {}, True, 1.0, torch.ones(2)], ids=lambda value: type(value).__name__
)
def test_any_sender(run, sender, caplog) -> None:
    made = run(rounds=1)
    for parameters in ({"client_status": "ONLINE"}, {"client_status": "FINISHED"}, {"client_status": sender}):
        made.say(ONLINE, sender, **parameters)
        made.say(ONLINE, 1, client_status=sender, client_process=sender)
    made.online(1, 2)
    made.sent(2)
    made.say(UPLOAD, sender, model_params={}, num_samples=666.0)
    made.upload(1, round_number=torch.ones(2))
    made.upload(1, 2)
    made.sent(2)
    made.finished(1, 2)
    assert made.end() is None
    assert made.aggregator.rounds == [(1, {1: 1.0, 2: 1.0})]
    assert "a message of a client that is not in the federation was ignored" in caplog.text


def test_a_flood_fills_no_log(run, caplog) -> None:
    made = run(rounds=1, minimum_clients=2)
    for stranger in range(100, 600):
        made.online(stranger)
        made.upload(stranger)
    made.online(1, 2)
    made.sent(2)
    for _ in range(500):
        made.upload(1, round_number=7)
        made.finished(2)
    made.online(2)
    made.sent(1)
    made.upload(1, 2)
    made.sent(2)
    made.finished(1, 2)
    assert made.end() is None
    assert len(caplog.records) < 40


def test_the_start_is_once(run) -> None:
    made = run(client_timeout=0.5)
    made.online(1)
    for _ in range(5):
        made.say(0, 0)
    timer = made.server._timer
    assert made.sent(1) == [(1, INIT, 1)]  # without client 2, whose time is not put off
    assert timer is not None


def test_clients_that_were_there_are_called_by_a_server_that_resumes(run, tmp_path) -> None:
    made = run(rounds=1, resume=True, checkpoint_dir=str(tmp_path / "state"))
    assert made.sent(2) == [(1, CHECK, None), (2, CHECK, None)]
    made.online(1, 2)
    assert made.sent(2) == [(1, SYNC, 1), (2, SYNC, 1)]
    made.upload(1, 2)
    made.sent(2)
    made.finished(1, 2)
    assert made.end() is None
    again = run(rounds=1, resume=True, checkpoint_dir=str(tmp_path / "state"))
    assert again.sent(2) == [(1, CHECK, None), (2, CHECK, None)]
    again.online(1, 2)
    assert again.sent(2) == [(1, FINISH, None), (2, FINISH, None)]
    again.finished(1, 2)
    assert again.end() is None
    assert again.aggregator.model["w"].tolist() == [1, 1]


def test_a_model_with_nan_is_not_saved(run, tmp_path, caplog) -> None:
    made = run(rounds=2, checkpoint_dir=str(tmp_path / "state"))
    made.online(1, 2)
    made.upload(1, 2)
    made.sent(4)
    made.aggregator.model["w"][0] = float("nan")
    made.upload(1, 2)
    made.sent(2)
    made.finished(1, 2)
    assert made.end() is None
    assert "round 2: the global model holds NaN or infinity, and is not saved" in caplog.text
    again = run(rounds=2, resume=True, checkpoint_dir=str(tmp_path / "state"))
    assert again.args.round_idx == 1


def test_a_client_that_follows_the_numbers_gets_the_final_model_whatever_it_was_sent(run) -> None:
    made = run(rounds=1)
    made.online(1, 2, client_process="a")
    made.sent(2)
    made.online(1, client_process="b")
    assert made.sent(1) == [(1, INIT, 1)]
    made.upload(1, 2, round_number=1)
    assert made.sent(2) == [(1, SYNC, 2), (2, SYNC, 2)]
    made.finished(1, 2)
    assert made.end() is None
