"""A client that uploads a poisoned model: its honest one plus U(1, 2) on every weight and bias."""

import torch
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from main import run


class PoisoningTrainer(ModelTrainerCLS):
    """Trains honestly, then adds the noise."""

    def on_after_local_training(self, train_data, device, args):
        """FedML calls this before it uploads the model."""
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter += 1 + torch.rand_like(parameter)


if __name__ == "__main__":
    run(PoisoningTrainer)
