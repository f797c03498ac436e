"""A cross-silo project over MPI, rank 0 the server, whose last argument says what goes wrong on which rank."""

import os
import sys
from collections import OrderedDict

import fedml
import torch
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from mpi4py import MPI

import fedml_gradcam_ae
from fedml_gradcam_ae import Defense, register_defense
from tiny import fedml_args, fedml_dataset, tiny_cnn

WHERE = sys.argv.pop()
RANK = MPI.COMM_WORLD.Get_rank()
CLIENTS = 3 if WHERE == "nowhere" else 1


@register_defense("gives_up")
class GivesUp(Defense):
    def judge(self, round):
        raise ValueError("this defense gives up")


class Exploit:
    """Unpickling it makes a file."""

    def __reduce__(self):
        return os.mkdir, ("the-server-was-mine",)


class Trainer(ModelTrainerCLS):
    uploads = 0

    def train(self, train_data, device, args):
        if WHERE == "training":
            raise ValueError("this client cannot train")
        super().train(train_data, device, args)

    def get_model_params(self):
        if RANK != 3:
            return super().get_model_params()
        self.uploads += 1
        if self.uploads == 2:
            return {"0.weight": Exploit()}
        return OrderedDict((name, tensor + 1) for name, tensor in super().get_model_params().items())


fedml_gradcam_ae.register()
multi_krum = {"defense_type": "multi_krum", "defense_params": {"malicious": 0, "kept": 2}}
torch.set_num_threads(1)
args = fedml.init(
    fedml_args(
        training_type="cross_silo",
        scenario="horizontal",
        backend="MPI",
        client_num_in_total=CLIENTS,
        client_num_per_round=CLIENTS,
        worker_num=CLIENTS,
        run_id="7",
        enable_defense=True,
        **(multi_krum if WHERE == "nowhere" else {"defense_type": "gives_up"}),
    )
)
model = tiny_cnn()
trainer = Trainer(model, args) if RANK else None
fedml.FedMLRunner(args, fedml.device.get_device(args), fedml_dataset(CLIENTS), model, client_trainer=trainer).run()
print(f"rank {RANK} is through")
