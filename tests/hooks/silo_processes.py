"""A real cross-silo server process, real clients, and puppets: clients whose every message a test decides."""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import threading
import time
from collections import OrderedDict
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import yaml
from fedml.core.distributed.communication.grpc import grpc_comm_manager_pb2, grpc_comm_manager_pb2_grpc
from fedml.core.distributed.communication.message import Message
from torch import Tensor

from forked import Forked
from patience import PATIENCE
from tiny import state_of, tiny_cnn

TESTS = Path(__file__).parents[1]
MAIN = TESTS / "hooks" / "silo" / "main.py"
ONLINE, UPLOAD = 5, 3
INIT, SYNC, CHECK, FINISH = 1, 2, 6, 7


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Silo:
    """One federation: its configuration, its server process, its clients."""

    def __init__(self, folder: Path, clients: int = 3, rounds: int = 3, **flat: Any) -> None:
        self.folder, self.clients = folder, clients
        self.ports = free_ports(clients + 2)  # one more, for a stranger
        rows = [f"{rank},{rank},127.0.0.1,{port}" for rank, port in enumerate(self.ports)]
        (folder / "table.csv").write_text("eid,rank,grpc_server_ip,grpc_server_port\n" + "\n".join(rows) + "\n")
        sections = {
            "common_args": {"training_type": "cross_silo", "scenario": "horizontal", "random_seed": 0},
            "data_args": {"dataset": "digits"},
            "train_args": {
                "federated_optimizer": "FedAvg",
                "client_num_in_total": clients,
                "client_num_per_round": clients,
                "comm_round": rounds,
                "epochs": 1,
                "batch_size": 32,
                "client_optimizer": "sgd",
                "learning_rate": 0.1,
                "weight_decay": 0.0,
                "frequency_of_the_test": 1,
            },
            "device_args": {"using_gpu": False},
            "comm_args": {"backend": "GRPC", "grpc_ipconfig_path": str(folder / "table.csv")},
            "tracking_args": {"enable_wandb": False, "using_mlops": False},
            "defense_args": {
                "enable_defense": True,
                "defense_type": "gradcam_ae",
                "defense_params": {
                    "profile": "paper",
                    "probe_size": "native",
                    "map_size": "native",
                    "epochs": 5,
                    "alpha": 10.0,
                    "record_dir": str(folder / "record"),
                },
            },
            "server_args": flat,
        }
        for name in ("comm_args", "defense_args", "attack_args", "client_args"):
            if name in flat:
                sections[name] = flat.pop(name)
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(sections))
        self.processes: list[Forked] = []
        self.server: Forked | None = None
        self.log = folder / "server.log"
        self.main = MAIN

    def start_server(self, may_end: bool = False) -> None:
        self.server = self._start(self.log, "-m", "fedml_gradcam_ae", self.main, "--rank", 0, "--role", "server")
        wait_for(lambda: self._answers() or self.server.poll() is not None, "the server's port")
        assert may_end or self.server.poll() is None, self.log.read_text()

    def start_client(self, rank: int, plugin: bool = False, main: Path = MAIN) -> Forked:
        """A FedML client: a plain one that knows nothing of the plug-in, or one that runs under it."""
        start = ["-m", "fedml_gradcam_ae", main] if plugin else [main]
        return self._start(self.folder / f"client-{rank}.log", *start, "--rank", rank, "--role", "client")

    def _start(self, log: Path, *arguments: Any) -> Forked:
        path = f"{TESTS.parent}:{TESTS}"
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": str(self.folder)}
        command = [*map(str, arguments), "--cf", str(self.config), "--run_id", "7"]
        process = Forked(command, log, self.folder, environment)
        self.processes.append(process)
        return process

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[0])) == 0

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def wait_for_log(self, text: str, patience: float = PATIENCE) -> None:
        def there() -> bool:
            assert self.server is None or self.server.poll() is None or text in self.log.read_text(), (
                self.log.read_text()
            )
            return text in self.log.read_text()

        wait_for(there, f"{text!r} in the server's log", patience, self.log)

    def wait_for_end(self, patience: float = PATIENCE) -> None:
        """The server ends by itself, in order."""
        assert self.server is not None
        try:
            self.server.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log.read_text()) from None
        assert self.server.returncode == 0, self.log.read_text()

    def ends_without_the_poisoner(self, clients) -> str:
        """The end of two rounds of three clients, the third of whom poisons: in order, and it is left out of both."""
        self.wait_for_end()
        assert [client.wait(PATIENCE) for client in clients] == [0, 0, 0]
        log = self.log.read_text()
        assert log.count(": left out 1 of 3 clients: 3") == 2, log
        assert log.count(": test accuracy ") == 2
        assert "is back" not in log
        return log

    def rounds(self) -> list[dict[str, Any]]:
        """The lines that the server wrote."""
        return [json.loads(line) for line in (self.folder / "record" / "rounds.jsonl").read_text().splitlines()]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def wait_for(condition: Any, what: str, patience: float = PATIENCE, log: Path | None = None) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited {patience} s for {what}\n{log.read_text() if log else ''}"
        time.sleep(0.05)


class Puppet(grpc_comm_manager_pb2_grpc.gRPCCommManagerServicer):  # type: ignore[misc]
    """A client over real sockets that does nothing by itself."""

    def __init__(self, silo: Silo, rank: int) -> None:
        self.silo, self.rank = silo, rank
        self.inbox: queue.Queue[Message] = queue.Queue()
        self.answers = threading.Event()  # cleared: takes calls, and never answers them
        self.answers.set()
        self.server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", -1)])
        grpc_comm_manager_pb2_grpc.add_gRPCCommManagerServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"127.0.0.1:{silo.ports[rank]}")
        self.server.start()

    def sendMessage(self, request: Any, context: Any) -> Any:  # noqa: N802  (gRPC's name)
        assert self.answers.wait(10 * PATIENCE)
        self.inbox.put(pickle.loads(request.message))
        return grpc_comm_manager_pb2.CommResponse()

    def send_bytes(self, content: bytes) -> None:
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.silo.ports[0]}", options=options) as channel:
            request = grpc_comm_manager_pb2.CommRequest(client_id=self.rank, message=content)
            grpc_comm_manager_pb2_grpc.gRPCCommManagerStub(channel).sendMessage(request, timeout=PATIENCE)

    def send(self, kind: int, **parameters: Any) -> None:
        message = Message(kind, self.rank, 0)
        for key, value in parameters.items():
            message.add_params(key, value)
        self.send_bytes(pickle.dumps(message))

    def online(self) -> None:
        self.send(ONLINE, client_status="ONLINE", client_os="linux")

    def finished(self) -> None:
        self.send(ONLINE, client_status="FINISHED", client_os="linux")

    def upload(self, model: Any = None, samples: Any = 20.0, **more: Any) -> None:
        self.send(UPLOAD, model_params=honest(self.rank) if model is None else model, num_samples=samples, **more)

    def receive(self, *kinds: int, patience: float = PATIENCE) -> Message:
        """The next message, which must be of one of these kinds; a call comes only if the puppet was there in time."""
        try:
            message = self.inbox.get(timeout=patience)
            while message.get_type() == CHECK and CHECK not in kinds:
                message = self.inbox.get(timeout=patience)
        except queue.Empty:
            raise AssertionError(f"puppet {self.rank} got nothing\n{self.silo.log.read_text()}") from None
        assert message.get_type() in kinds, message.get_type()
        return message

    def close(self) -> None:
        self.answers.set()
        self.server.stop(None)


def honest(rank: float) -> OrderedDict[str, Tensor]:
    """A model that no screen finds fault with, different for each client."""
    return OrderedDict(
        (name, tensor + 0.01 * rank if tensor.is_floating_point() else tensor)
        for name, tensor in state_of(tiny_cnn()).items()
    )
