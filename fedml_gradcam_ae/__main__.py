"""Command line of the plug-in.

`python -m fedml_gradcam_ae SCRIPT.py --cf CONFIG ...` runs an unmodified FedML script with the plug-in on.
`python -m fedml_gradcam_ae certificates ...` makes certificates for a trial of mutual TLS.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

USAGE = """\
usage: python -m fedml_gradcam_ae SCRIPT.py --cf CONFIG.yaml [arguments of the script]

Runs a FedML script as it is, with `defense_type` and `attack_type` of CONFIG.yaml taking effect,
the plug-in's types and FedML's own.

       python -m fedml_gradcam_ae certificates --clients N --out FOLDER [--days DAYS]

Makes an authority and certificates for a trial of mutual TLS in a cross-silo federation."""


def main(argv: list[str]) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name: a script and its arguments, or `certificates` and its options.

    Returns:
        The exit status: 0, or 2 for a mistake in the command line or the configuration, reported in one message.

    Raises:
        SystemExit: if the script raises it.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] == "certificates":
        from fedml_gradcam_ae.hooks.cross_silo import certificates

        return certificates.main(argv[1:])
    script = Path(argv[0])
    if not script.is_file():
        print(f"error: there is no script {script}\n\n{USAGE}", file=sys.stderr)
        return 2

    from fedml_gradcam_ae.contract.settings import SettingsError
    from fedml_gradcam_ae.hooks.simulation import ranks

    try:
        _check_config_file(argv[1:])
        from fedml_gradcam_ae import register

        register()
        # As with `python SCRIPT.py`: sys.argv holds the script's arguments, and sys.path begins with its folder.
        sys.argv = argv
        sys.path[0] = str(script.resolve().parent)
        runpy.run_path(str(script), run_name="__main__")
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        ranks.abort(2)
        return 2
    except SystemExit as stop:
        ranks.abort(stop.code)
        raise
    return 0


def _check_config_file(arguments: list[str]) -> None:
    """Report a missing or broken configuration file before FedML is imported, which takes seconds."""
    from fedml_gradcam_ae.contract.yaml_file import read_sections

    for place, option in enumerate(arguments):
        name, _, attached = option.partition("=")
        if name in ("--cf", "--yaml_config_file"):
            read_sections(attached or "".join(arguments[place + 1 : place + 2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
