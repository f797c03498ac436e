"""mpirun -np 5 python over_mpi.py FOLDER: all federations in one start; rank 0 writes what came of each."""

import copy
import json
import socket
import sys
from pathlib import Path

import fedml
import torch
from fedml.simulation.mpi.fedavg import FedAvgAPI
from fedml.simulation.mpi.fedavg_seq import FedAvgSeqAPI
from mpi4py import MPI

import fedml_gradcam_ae
from federations import FEDERATIONS, PLAIN, data, settings
from fedml_gradcam_ae import Defense, Verdict, register_defense
from fedml_gradcam_ae.hooks.simulation.simulated_server import SimulatedServer
from fedml_gradcam_ae.recording import events, recorder
from optimizers_over_mpi import MORE, OPTIMIZERS, WAYS, TestsNothing, network, options, register_attacks
from tiny import fedml_args, state_of, tiny_cnn

MPI.Finalize = MPI.COMM_WORLD.Barrier  # FedML ends MPI with every run; here more runs follow
RANK = MPI.COMM_WORLD.Get_rank()
FOLDER = Path(sys.argv[1])
seen = []


@register_defense("witness")
class Witness(Defense):
    def prepare(self, network, test_data):
        seen.append("prepared")

    def judge(self, round):
        seen.append(round)
        nobody = [False] * len(round.uploads)
        return Verdict(flagged=nobody, excluded=nobody, weights=[1 / len(nobody)] * len(nobody))


def federation(model, server_aggregator=None, **options):
    dataset, args = data(options.get("batch_size", 16)), fedml.init(fedml_args(backend="MPI", **options))
    own = server_aggregator(model, args) if server_aggregator is not None else None
    fedml.FedMLRunner(args, fedml.device.get_device(args), dataset, model, None, own).run()
    return dataset


def write(name, **found):
    if RANK == 0:
        torch.save(found, FOLDER / f"{name}.pt")


def as_shipped():
    init = fedml.init
    fedml.core.mlops.fetch_config = lambda *args, **kwargs: False
    fedml.get_env_version = lambda: "release"
    fedml.init = lambda args: init(args, check_env=False, should_init_logs=False)
    model = tiny_cnn()
    federation(model, **PLAIN, **FEDERATIONS["plain"])
    write("as shipped", model=state_of(model))
    for optimizer in OPTIMIZERS:
        model = network(optimizer)
        federation(model, TestsNothing, **options(optimizer))
        write(f"{optimizer} as shipped", model=state_of(model))
    fedml.init = init


def with_the_plug_in(name, model, **given):
    heard, uploads, means = [], [], []
    inner = SimulatedServer.aggregate

    def aggregate(self, aggregator, average, round, **more):
        uploads.append(copy.deepcopy([upload for _, upload in round]))
        found = inner(self, aggregator, average, round, **more)
        means.append(copy.deepcopy(found))
        return found

    SimulatedServer.aggregate = aggregate
    with events.listening(heard.append):
        dataset = federation(model, **given)
    SimulatedServer.aggregate = inner
    found = {
        "model": state_of(model),
        "uploads": uploads,
        "means": means,
        "rounds": json.dumps([recorder.as_json(e) for e in heard if isinstance(e, events.RoundReport)]),
        "success": [e.values["Attack/Success"] for e in heard if "Attack/Success" in getattr(e, "values", {})],
        "measured": [e.number for e in heard if isinstance(e, events.Measured) and "Test/Acc" in e.values],
    }
    if name == "witness" and RANK == 0:
        first, *rounds = seen
        found["witness"] = {
            "prepared": first,
            "ids": [r.client_ids for r in rounds],
            "samples": [r.samples for r in rounds],
            "global": [dict(r.global_model) for r in rounds],
            "private": all(r.network is not model and not r.network.training for r in rounds),
            "test data": all(r.test_data is dataset[3] for r in rounds),
            "local data": [dict(r.local_data) for r in rounds],
        }
    write(name, **found)


def no_network(*args, **kwargs):
    print("NETWORK", args, file=sys.stderr)
    raise OSError("offline")


hook, stock = sys.excepthook, (vars(FedAvgAPI).copy(), vars(FedAvgSeqAPI).copy())
as_shipped()
socket.socket.connect = socket.getaddrinfo = no_network
fedml_gradcam_ae.register()
for name in FEDERATIONS:
    with_the_plug_in(name, tiny_cnn(), **settings(name, str(FOLDER / name)))
register_attacks()
for optimizer in OPTIMIZERS:
    for way in WAYS:
        with_the_plug_in(f"{optimizer} {way}", network(optimizer), **options(optimizer, **WAYS[way]))
for name, (optimizer, own) in MORE.items():
    with_the_plug_in(name, tiny_cnn(), **options(optimizer, **own))
hooked = sys.excepthook
fedml_gradcam_ae.unregister()
classes = stock == (vars(FedAvgAPI), vars(FedAvgSeqAPI))
write("hooks", changed=hooked is not hook, restored=sys.excepthook is hook, classes=classes)
