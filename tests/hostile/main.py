"""The server of the hostile corpus: its network, a record under every defense, and the limits of a usual machine."""

import resource

import fedml
import torch

from fedml_gradcam_ae.recording import events
from fedml_gradcam_ae.recording.recorder import FolderRecorder
from hostile.network import network
from tiny import fedml_dataset

FILES = 1024  # open at once, as Linux allows a process by default
MEMORY = 16 * 2**30  # bytes of address space: what runs away ends the server, and not the machine

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    args = fedml.init()
    device = fedml.device.get_device(args)
    with events.listening(FolderRecorder("record", pictures=False)):
        fedml.FedMLRunner(args, device, fedml_dataset(args.client_num_in_total), network()).run()
