"""The command line of the benchmark suite."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fedml_gradcam_ae
from fedml_gradcam_ae.contract.settings import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run the command that a command line asks for.

    Args:
        arguments: the words after `python -m benchmark`; None: those of the process.

    Returns:
        0 if all went well, 1 if a run failed or a table does not agree with its raw lines, 2 for invalid arguments or
        settings.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a configuration's simulations that are not finished, then report")
    run.add_argument("config", type=Path, help="a benchmark configuration, for example configs/quickstart.yaml")
    run.add_argument("--out", type=Path, required=True, help="folder for the results")
    run.add_argument("--device", choices=("cpu", "cuda"), help="instead of the configuration's; cuda is the first GPU")
    run.add_argument("--jobs", type=_positive, help="runs at a time; default: one for each thread of the processor's")
    run.add_argument(
        "--remember",
        type=_positive,
        default=0,
        metavar="GB",
        help="disk space for a cache of the clients' training results (GB); default: no cache",
    )
    run.set_defaults(do=_run)
    for name, do, text in (
        ("report", _report, "write the report of a results folder anew"),
        ("check", _check, "recompute a results folder's tables from its raw lines and compare"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("out", type=Path, help="a results folder")
        command.set_defaults(do=do)
    recommend = commands.add_parser("recommend", help="name the best defense for each setting and number of attackers")
    recommend.add_argument("out", type=Path, help="a results folder")
    recommend.set_defaults(do=_recommend)
    commands.add_parser("list", help="what a configuration can name").set_defaults(do=_list)
    return parser


def _run(options: argparse.Namespace) -> int:
    from benchmark.config import read_config

    config = read_config(options.config, options.device)
    # Importing FedML takes seconds, so that the configuration is validated first.
    fedml_gradcam_ae.register()
    from benchmark.report import report
    from benchmark.running.lock import locked
    from benchmark.running.schedule import check_all, run_all

    check_all(config, options.out)
    with locked(options.out) as lock:
        failed = run_all(config, options.out, lock, options.jobs, options.remember * 10**9)
        report(options.out)
    return 1 if failed else 0


def _report(options: argparse.Namespace) -> int:
    from benchmark.report import report

    report(options.out)
    return 0


def _check(options: argparse.Namespace) -> int:
    from benchmark.report.tables.check import check

    return check(options.out)


def _recommend(options: argparse.Namespace) -> int:
    from benchmark.measures.observations import Observations
    from benchmark.measures.results import load
    from benchmark.report.advice import advice

    results = load(options.out)
    print(advice(results, Observations(results)))
    return 0


def _list(options: argparse.Namespace) -> int:
    from benchmark.data.registry import data_sets
    from benchmark.models.registry import networks
    from fedml_gradcam_ae.contract import registry
    from fedml_gradcam_ae.hooks import builtin

    for title, names in (
        ("data", data_sets()),
        ("models", networks()),
        ("attacks", registry.attacks()),
        ("defenses", registry.defenses()),
        ("FedML's own attacks, as shipped", [f"fedml:{name}" for name in builtin.ATTACKS]),
        ("FedML's own defenses, as shipped", [f"fedml:{name}" for name in builtin.DEFENSES]),
    ):
        print(f"{title}: {', '.join(['none', *sorted(names)] if title in ('attacks', 'defenses') else sorted(names))}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
