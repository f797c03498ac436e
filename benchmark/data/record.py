"""A record, in a results folder, of the images that its results were computed on.

The name of a run depends on the settings, not on where the data are stored. The record is compared before later runs,
so that results on other images (a `folder` that changed, a data set that was incomplete) are not mixed up.
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
    """Write which images these settings refer to into the results folder, or compare with the record that is there.

    Args:
        data: the settings.
        out: the results folder.

    Raises:
        SettingsError: if the record that is there is of other images.
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
