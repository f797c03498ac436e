"""Peak memory of each defense on K = 20 ResNet-18 uploads, beside the size of the uploads themselves.

    python -m benchmark.speed.peak_memory            all of them, each in a process of its own
    python -m benchmark.speed.peak_memory krum       one

On Linux, this is the rise of the process's peak (VmHWM) above its memory when all uploads are loaded. A judgment on a
small model comes first, so that code that is loaded at first use does not count. ByzFL's rules are given state dicts
here, too: the matrix that they need is part of their memory.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torch import nn

from fedml_gradcam_ae import Round

# K, the number of uploads.
CLIENTS = 20


def measure(name: str) -> tuple[float, float]:
    """Measure the peak memory of one rule.

    Args:
        name: of the rule.

    Returns:
        The bytes that the rule needs beside the uploads, and the bytes of the uploads.
    """
    from benchmark.speed.rules import byzfl_rules, rules
    from benchmark.speed.uploads import round_of, stored_round

    rule = (rules() | byzfl_rules())[name]

    def judge(round: Round) -> None:
        rule.build(len(round.uploads))(rule.prepare(round))

    small = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    judge(round_of(small, CLIENTS))
    round = stored_round("resnet18", CLIENTS)
    size = sum(t.numel() * t.element_size() for upload in round.uploads for t in upload.values())
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    judge(round)
    return max(0.0, _status("VmHWM") - before), size


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    """Print the peak memory of the rule that the command line names, or a table of all rules."""
    if len(sys.argv) > 1:
        used, size = measure(sys.argv[1])
        print(f"{sys.argv[1]:36s}{used / 1e6:10.0f}{100 * used / size:12.0f}")
        return
    from benchmark.speed.rules import byzfl_rules, rules

    print(f"{'defense':36s}{'peak, MB':>10s}{'% of uploads':>14s}", flush=True)
    for name in rules() | byzfl_rules():
        subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmark.speed.peak_memory", name], check=True)


if __name__ == "__main__":
    main()
