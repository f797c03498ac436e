"""A client of the same project that adds 1 to every weight and bias before it uploads."""

import fedml
import torch
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS

from tiny import fedml_dataset, tiny_cnn


class Poisoning(ModelTrainerCLS):
    def on_after_local_training(self, train_data, device, args):
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter += 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    args = fedml.init()
    model = tiny_cnn()
    dataset = fedml_dataset(args.client_num_in_total)
    fedml.FedMLRunner(args, fedml.device.get_device(args), dataset, model, Poisoning(model, args)).run()
