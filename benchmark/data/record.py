"""Which images the results in a folder come from.

A run's name holds what the configuration asks for, not where the data lie: so that a result is not taken for one on
other images (a `folder` that changed, a data set that was incomplete), they are written down once and compared.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from benchmark.atomic_file import write_json
from benchmark.data.images import read
from benchmark.data.settings import WHICH_IMAGES, Data
from fedml_gradcam_ae.contract.settings import SettingsError


def record(data: Data, out: Path) -> None:
    """Write down which images these settings mean in this results folder.

    Raises:
        SettingsError: if they meant others there before.
    """
    images = read(data)
    asked = data.model_dump(include=set(WHICH_IMAGES))
    found = {
        **asked,
        "train_images": len(images.train),
        "test_images": len(images.test),
        "classes": list(images.classes),
        "fingerprint": images.fingerprint,
    }
    path = out / f"data-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]}.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != found:
            raise SettingsError(
                f"data: {out} holds results on other images of {data.name} ({before['train_images']} training and "
                f"{before['test_images']} test images, fingerprint {before['fingerprint']}) than are found now "
                f"({found['train_images']}, {found['test_images']}, {found['fingerprint']}): choose another --out."
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
