"""Write tests/examples/fedml.csv, a table of facts of FedML's example configurations: one row for each file.

    python tools/collect_examples.py FOLDER

FOLDER is `python/examples/federate` of a checkout of FedML's repository. A file is a configuration if it has the
section `common_args` or `train_args`; files that are not YAML are named on stderr and left out.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).parents[1] / "tests" / "examples" / "fedml.csv"
FACTS = [
    "training_type",
    "backend",
    "scenario",
    "federated_optimizer",
    "model",
    "dataset",
    "client_num_in_total",
    "client_num_per_round",
    "trpc_master_config_path",
]
SECTIONS = ["defense_args", "attack_args"]  # as JSON, since their keys differ


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the facts of each configuration, in the order of the paths.

    Args:
        folder: where the examples are.
    """
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        name = path.relative_to(folder).as_posix()
        try:
            sections = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            print(f"not YAML: {name}", file=sys.stderr)
            continue
        if not isinstance(sections, dict) or not sections.keys() & {"common_args", "train_args"}:
            continue
        flat = {key: value for keys in sections.values() if isinstance(keys, dict) for key, value in keys.items()}
        given = {section: json.dumps(sections[section]) for section in SECTIONS if section in sections}
        yield {"path": name, **{key: flat.get(key) for key in FACTS}, **given}


def main(folder: str) -> None:
    """Write the table.

    Args:
        folder: where the examples are.
    """
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", *FACTS, *SECTIONS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
