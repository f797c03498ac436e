"""A made-up benchmark of realistic size, to look at.

PYTHONPATH=.:tests/benchmark python tests/benchmark/large.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import made_up
from fedml_gradcam_ae.recording import pictures
from fedml_gradcam_ae.recording.events import ClientReport, RoundReport

ATTACKS = [
    {"type": "none"},
    {"type": "constrained_perturbation", "attackers": 2, "radius": 1.0},
    {"type": "constrained_perturbation", "attackers": 2, "radius": 0.3},
    {"type": "uniform_noise", "attackers": 2},
    {"type": "mpaf", "attackers": 2},
    {"type": "fang", "attackers": 2},
]
DEFENSES = [
    {"type": "none"},
    {"type": "fedml:krum", "byzantine_client_num": 2},
    {"type": "fedml:rfa"},
    {"type": "multi_krum", "malicious": 2},
    {"type": "gradcam_krum", "malicious": 2},
    {"type": "gradcam_ae", "profile": "paper"},
]
SURE = {"uniform_noise": 8.0, "mpaf": 6.0}
DETECTORS = {
    "gradcam_ae": made_up.Detector({**SURE, "constrained_perturbation": -4.0}, seconds=2.0),
    "multi_krum": made_up.Detector({**SURE, "fang": 1.0, "constrained_perturbation": 3.0}, seconds=0.05),
    "fedml:krum": made_up.Detector(SURE, follows_one=True, scores=False, seconds=0.3),
    "gradcam_krum": made_up.Detector({**SURE, "fang": 2.0}, follows_one=True, seconds=1.5),
    "fldetector": made_up.Detector({"mpaf": 3.0, "fang": 1.0}, seconds=0.2),
    "fltrust": made_up.Detector({**SURE, "constrained_perturbation": 1.0}, seconds=4.0),
    "auror": made_up.Detector({"uniform_noise": 2.0}, seconds=0.02),
}
WATCH = ["krum", "multi_krum", "gradcam_ae", "gradcam_krum", "fldetector", "fltrust", "auror", "flame"]


def write(out: Path) -> None:
    """3 seeds x 6 attacks x 6 defenses, 8 watchers; two runs failed, one is missing, some have pictures."""
    folders = made_up.write(
        out,
        ATTACKS,
        DEFENSES,
        seeds=[0, 1, 2],
        watch=WATCH,
        detectors=DETECTORS,
        rounds=12,
        clients=20,
        failed=(20,),
        missing=(107,),
    )
    for folder in folders[11:36:6]:
        _draw(out / folder)


def _draw(folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    maps = torch.rand(20, 1, 8, 8)
    report = RoundReport(
        number=12,
        clients=[ClientReport(i, 70, 0.1 + 0.01 * i, i > 17, i > 17, 0.05, i < 2) for i in range(20)],
        threshold=0.275,
        evidence={"heat_maps": maps, "reconstructions": maps * 0.8},
        judged=list(range(20)),
    )
    pictures.save(pictures.heat_maps(report), folder / "round-012-heat-maps.png")
    pictures.save(pictures.errors(report), folder / "round-012-errors.png")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
