"""The federations that test_mpi.py runs over MPI and, where it compares, in the single-process simulator."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from tiny import fedml_dataset

CLIENTS, SAMPLED = 6, 4
PLAIN = {
    "client_num_in_total": CLIENTS,
    "client_num_per_round": SAMPLED,
    "gpu_mapping_file": None,
    "gpu_mapping_key": None,
}
GRADCAM = {"profile": "paper", "probe_size": "native", "map_size": "native", "epochs": 5}
NOISE = {"enable_attack": True, "attack_type": "uniform_noise", "attack_params": {"attackers": 3}}
FLIP = {
    "enable_attack": True,
    "attack_type": "label_flipping",
    "original_class_list": list(range(10)),
    "target_class_list": list(range(9, -1, -1)),
}

FEDERATIONS: dict[str, dict[str, Any]] = {
    "plain": {"comm_round": 2},
    "krum": {"comm_round": 1, "enable_defense": True, "defense_type": "fedml:krum", "byzantine_client_num": 0},
    "multikrum": {
        "comm_round": 1,
        "enable_defense": True,
        "defense_type": "multikrum",
        "byzantine_client_num": 0,
        "krum_param_m": 2,
    },
    "norm_diff_clipping": {
        "comm_round": 1,
        "enable_defense": True,
        "defense_type": "norm_diff_clipping",
        "norm_bound": 0.1,
    },
    "gradcam_ae": {
        "comm_round": 1,
        "enable_defense": True,
        "defense_type": "gradcam_ae",
        "defense_params": GRADCAM,
        **NOISE,
    },
    "krum under attack": {
        "comm_round": 2,
        "enable_defense": True,
        "defense_type": "fedml:krum",
        "byzantine_client_num": 0,
        **NOISE,
    },
    "noise": {"comm_round": 2, **NOISE},
    "perturbation": {
        "comm_round": 1,
        "enable_attack": True,
        "attack_type": "constrained_perturbation",
        "attack_params": {"attackers": 2, "steps": 3},
    },
    "byzantine": {
        "comm_round": 1,
        "enable_attack": True,
        "attack_type": "byzantine",
        "byzantine_client_num": SAMPLED,
        "attack_mode": "zero",
    },
    "flipping none": {"comm_round": 2, "ratio_of_poisoned_client": 0.0, **FLIP},
    "flipping some": {"comm_round": 2, "ratio_of_poisoned_client": 0.5, **FLIP},
    "flipped labels": {
        "comm_round": 2,
        "enable_attack": True,
        "attack_type": "label_flip",
        "attack_params": {"attackers": 2, "redraw": "every_round"},
    },
    "backdoor in parts": {
        "comm_round": 2,
        "enable_attack": True,
        "attack_type": "dba",
        "attack_params": {"attackers": 3, "trigger_size": 4, "scale": 2.0},
    },
    "multi_krum": {
        "comm_round": 2,
        "enable_defense": True,
        "defense_type": "multi_krum",
        "defense_params": {"malicious": 0, "kept": 3},
        **NOISE,
    },
    "momentum and lost uploads": {
        "comm_round": 3,
        "worker_momentum": 0.9,
        "server_momentum": 0.5,
        "drop_out": 0.3,
        "enable_defense": True,
        "defense_type": "median",
        **NOISE,
    },
    "composed": {
        "comm_round": 2,
        "enable_defense": True,
        "defense_type": "multi_krum",
        "defense_params": {"malicious": 0, "kept": 3, "pre": ["norm_clipping", "nnm"], "then": "median"},
        **NOISE,
    },
    "median": {"comm_round": 2, "enable_defense": True, "defense_type": "median", **NOISE},
    "witness": {"comm_round": 2, "enable_defense": True, "defense_type": "witness", **NOISE},
}


def settings(name: str, folder: str) -> dict[str, Any]:
    """What a user would write for one of them; gradcam_ae keeps its record in the folder."""
    own = {**PLAIN, **FEDERATIONS[name]}
    if own.get("defense_type") == "gradcam_ae":
        own["defense_params"] = {**own["defense_params"], "record_dir": folder}
    return own


def data(batch_size: int = 16) -> list[Any]:
    """Without shuffling, so that a client's upload depends on nothing but its start."""
    dataset = fedml_dataset(CLIENTS)
    dataset[5] = {client: DataLoader(loader.dataset, batch_size=batch_size) for client, loader in dataset[5].items()}
    return dataset
