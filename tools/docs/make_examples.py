"""Count which of FedML's examples are accepted, and why the others are refused: python tools/docs/make_examples.py.

The facts are in tests/examples/fedml.csv, made by tools/collect_examples.py. Each row goes through the checks of the
start of a run, as it is and with `defense_type: multi_krum`. The counts are printed and written into docs/fedml.md; a
test keeps the page current.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from fedml_gradcam_ae.contract.settings import SettingsError

ROOT = Path(__file__).parents[2]
PAGE, TABLE = ROOT / "docs" / "fedml.md", ROOT / "tests" / "examples" / "fedml.csv"
BLOCK = re.compile(
    r"(<!-- begin: tools/docs/make_examples.py -->\n).*?(<!-- end: tools/docs/make_examples.py -->)", re.DOTALL
)
UNCHECKED = ("path", "model", "dataset")  # facts that the start does not look at
DEFENDED = json.dumps({"enable_defense": True, "defense_type": "multi_krum"})
ACCEPTED = "accepted"
UNPROTECTED = "accepted, with the warning that the defense withstands no malicious client among so few"


def counts(defense: str | None = None) -> Counter[str]:
    """Return the number of examples by what becomes of them.

    Args:
        defense: a section `defense_args` in place of each example's own, as JSON; None: its own.
    """
    with TABLE.open(encoding="utf-8", newline="") as file:
        return Counter(
            _outcome(tuple((key, value) for key, value in row.items() if key not in UNCHECKED), defense)
            for row in csv.DictReader(file)
        )


@cache
def _outcome(row: tuple[tuple[str, str], ...], defense: str | None) -> str:
    """Return `ACCEPTED`, `UNPROTECTED`, or the message that refuses an example, up to the names that would be valid."""
    from fedml_gradcam_ae.hooks import configuration
    from fedml_gradcam_ae.hooks.announcement import warnings_of

    facts = {key: value for key, value in row if value}
    given = {"defense_args", "attack_args"} & facts.keys()
    sections: dict[str, Any] = {key: json.loads(facts.pop(key)) for key in given}
    if defense is not None:
        sections["defense_args"] = json.loads(defense)
    flat: dict[str, Any] = {key: int(value) if value.isdecimal() else value for key, value in facts.items()}
    sections["common_args"] = flat
    merged = {key: value for section in sections.values() for key, value in section.items()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of defects of FedML's own rules
        path = Path(folder, "fedml_config.yaml")
        path.write_text(yaml.safe_dump(sections), encoding="utf-8")
        args = SimpleNamespace(**merged, yaml_config_file=str(path))
        try:
            configuration.check(args)
        except SettingsError as error:
            return "refused: " + str(error).replace(str(path), "the file").split(" Valid: ")[0]
        return UNPROTECTED if any("withstands no" in line for line in warnings_of(args)) else ACCEPTED


def table() -> str:
    """Return the counts as a Markdown table."""
    own, defended = counts(), counts(DEFENDED)
    refused = sorted((own + defended).keys() - {ACCEPTED, UNPROTECTED}, key=lambda what: (-defended[what], what))
    lines = [
        f"| {sum(own.values())} examples | as they are | with `defense_type: multi_krum` |",
        "| --- | --- | --- |",
        *(f"| {what} | {own[what]} | {defended[what]} |" for what in (ACCEPTED, UNPROTECTED, *refused)),
    ]
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with the table as it should be."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{table()}\n\n{found[2]}", text)


if __name__ == "__main__":
    print(table())
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
