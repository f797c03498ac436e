"""A FedML script over MPI that fails where its last argument says."""

import sys

import fedml
from mpi4py import MPI

import fedml_gradcam_ae
from fedml_gradcam_ae import Defense, register_defense
from tiny import fedml_args, fedml_dataset, tiny_cnn

WHERE = sys.argv.pop()
RANK = MPI.COMM_WORLD.Get_rank()


@register_defense("gives_up")
class GivesUp(Defense):
    def judge(self, round):
        raise ValueError("this defense gives up")


class Untrainable:
    def __iter__(self):
        raise ValueError("this client cannot train")


def refuse():
    raise ValueError("this message cannot be read")


class Unreadable:
    """Sent as a sample count, it fails where it arrives."""

    def __reduce__(self):
        return refuse, ()


fedml_gradcam_ae.register()
args = fedml_args(
    backend="MPI",
    federated_optimizer="FedGKT" if WHERE == "optimizer" else "FedAvg",
    client_num_in_total=2 if WHERE == "world" else 1,
    client_num_per_round=2 if WHERE == "world" else 1,
    comm_round=1,
    gpu_mapping_file=None,
    gpu_mapping_key=None,
    enable_defense=True,
    defense_type="gives_up",
)
args = fedml.init(args)
if RANK == 1 and WHERE == "loading":
    raise ValueError("this client finds no data")
if RANK == 1 and WHERE == "leaving":
    sys.exit("this client leaves")
dataset = fedml_dataset(1)
if WHERE == "training":
    dataset[5] = {0: Untrainable()}
if WHERE == "sending":
    dataset[4] = {0: Unreadable()}
try:
    fedml.FedMLRunner(args, fedml.device.get_device(args), dataset, tiny_cnn()).run()
except ValueError as error:
    print("a script that goes on after", error)
