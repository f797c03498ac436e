"""The command line of the benchmark suite."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fedml_gradcam_ae
from fedml_gradcam_ae.settings import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run one configuration and report on it; 2 for a mistake in the configuration."""
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a configuration's simulations that are not finished, then report")
    run.add_argument("config", type=Path, help="a benchmark configuration, for example configs/quickstart.yaml")
    run.add_argument("--out", type=Path, required=True, help="folder for the results")
    options = parser.parse_args(arguments)

    try:
        from benchmark.config import read_config

        config = read_config(options.config)
        # Importing FedML takes seconds: only after the configuration is known to be right.
        fedml_gradcam_ae.register()
        from benchmark.bridge import write_matrix
        from benchmark.report import report
        from benchmark.runs import run_all

        write_matrix(config, run_all(config, options.out), options.out)
        report(options.out)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
