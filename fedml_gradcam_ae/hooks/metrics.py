"""Events with the metrics that FedML measures, which FedML sends to its own platform only."""

from __future__ import annotations

from typing import Any

import fedml.mlops

from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.recording import events


def patch(patches: Patches) -> None:
    """Publish a `Measured` event for the metrics that FedML logs after a round."""
    stock_log = fedml.mlops.log

    def log(metrics: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        if "round" in metrics:
            values = {name: float(value) for name, value in metrics.items() if name != "round"}
            events.publish(events.Measured(number=int(metrics["round"]) + 1, values=values))
        stock_log(metrics, *args, **kwargs)

    patches.replace(
        fedml.mlops, "log", log, mends="test accuracy reaches FedML's platform and a log line, not the user's program"
    )
