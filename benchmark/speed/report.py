"""What was timed as a table and a chart.

    python -m pytest benchmark/speed/bench_defenses.py --benchmark-json=FILE.json
    python -m benchmark.speed.report FILE.json [...] --out docs

writes docs/runtime.csv and docs/figures/runtime.png and .svg, and prints the table of docs/speed.md. The benchmark may
be run in parts, with -k, and its files be given together. A runtime.csv is accepted, too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmark.report.figures import save
from benchmark.report.numbers import decimals
from benchmark.report.tables.table import write
from benchmark.speed import CLIENTS, NETWORKS
from benchmark.speed.chart import chart
from benchmark.speed.measured import Times, exponent, load, table


def markdown(times: Times) -> str:
    """Return a Markdown table with one line per rule, the fastest first.

    It shows the seconds for each network and K, and the exponent of their growth with K.

    Args:
        times: the measured times.
    """
    networks = [name for name in NETWORKS if any(key[0] == name for key in times)]
    columns = [(network, number) for network in networks for number in (*CLIENTS, None)]
    head = [
        f"{NETWORKS[network]}, K = {number}" if number == CLIENTS[0] else "exponent" if number is None else str(number)
        for network, number in columns
    ]
    lines = [_line(["rule", *head]), _line(["---"] * (1 + len(head)))]
    for rule in by_time(times):
        cells = [
            _exponent(times, network, rule) if number is None else _seconds(times, network, rule, number)
            for network, number in columns
        ]
        lines.append(_line([f"`{rule}`", *cells]))
    return "\n".join(lines)


def by_time(times: Times) -> list[str]:
    """Return the rules by their median at the middle K, the fastest first.

    Each rule's first measured network counts. Most rules are measured at the middle K.

    Args:
        times: the measured times.
    """
    middle = CLIENTS[len(CLIENTS) // 2]

    def place(rule: str) -> tuple[float, str]:
        found = [times[key].median for network in NETWORKS if (key := (network, rule, middle)) in times]
        return (found[0] if found else float("inf"), rule)

    return sorted({rule for _, rule, _ in times}, key=place)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seconds(times: Times, network: str, rule: str, clients: int) -> str:
    found = times.get((network, rule, clients))
    if found is None:
        return ""
    digits = decimals(float(f"{found.median:.2g}"))
    return f"{found.median:.{max(digits, 2)}f}"


def _exponent(times: Times, network: str, rule: str) -> str:
    found = exponent(times, network, rule, CLIENTS)
    return "" if found is None else f"{found:.1f}"


def main(arguments: list[str] | None = None) -> None:
    """Write the CSV file and the chart, and print the table.

    Args:
        arguments: of the command line; None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.report", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of --benchmark-json, or a runtime.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for runtime.csv and figures/runtime.*")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    # Read back, so that the table and the chart show the rounded values of the file.
    times = load([write(table(load(options.files)), options.out)])
    drawn = chart(times)
    if drawn:
        save(drawn, options.out, "runtime")
    else:
        print("No chart: no rule was timed at more than one K.", file=sys.stderr)
    print(markdown(times))


if __name__ == "__main__":
    main()
