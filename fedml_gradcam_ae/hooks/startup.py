"""Quiet, offline start of FedML: no requests to the vendor's server unless the user asks for FedML's tracking."""

from __future__ import annotations

import os
from typing import Any

import fedml
import fedml.core.mlops
import fedml.runner

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.hooks.announcement import announce
from fedml_gradcam_ae.hooks.log_lines import show_program_lines
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import ranks
from fedml_gradcam_ae.recording.recorder import show_log


def patch(patches: Patches) -> None:
    """Replace `fedml.init` and the trace file that a runner leaves behind."""
    stock_init = fedml.init

    def init(args: Any = None, check_env: bool = True, should_init_logs: bool = True) -> Any:
        if args is None:
            args = fedml.load_arguments(fedml._global_training_type, fedml._global_comm_backend)
        # `fedml.run_simulation` names both, and FedML fills them in where the file has none, but later.
        for key, known in (("training_type", fedml._global_training_type), ("backend", fedml._global_comm_backend)):
            if known is not None and not hasattr(args, key):
                setattr(args, key, known)
        try:
            return checked_init(args, check_env, should_init_logs)
        except SettingsError as error:
            if getattr(args, "backend", None) == "MPI":
                ranks.refuse(error)
            raise

    def checked_init(args: Any, check_env: bool, should_init_logs: bool) -> Any:
        configuration.check(args)
        show_log()
        if tracks(args):
            args = stock_init(args, check_env, should_init_logs)
            announce(args)
            return args
        show_program_lines()
        with Patches() as quiet:
            quiet.replace(
                fedml,
                "get_env_version",
                lambda: os.environ.get("FEDML_ENV_VERSION", "release"),
                mends="reading the version makes ~/.fedml and writes a file there",
            )
            quiet.replace(
                fedml.core.mlops,
                "fetch_config",
                lambda *_args, **_kwargs: False,
                mends="five requests to the vendor's server, without a timeout, tracking or not",
            )
            args = stock_init(args, check_env=False, should_init_logs=False)
        announce(args)
        return args

    patches.replace(
        fedml,
        "init",
        init,
        mends="posts to the vendor's server, tracking or not, without a timeout; replaces "
        "`sys.stdout.write` and `sys.excepthook`; makes `./logs` and `~/.fedml`; checks no setting",
    )

    stock_trace = fedml.runner.FedMLRunner.log_runner_result

    def log_runner_result() -> None:
        if tracks(fedml.core.mlops.MLOpsStore.mlops_args):
            stock_trace()

    patches.replace(
        fedml.runner.FedMLRunner,
        "log_runner_result",
        staticmethod(log_runner_result),
        mends="every run leaves a file named by its process under `~/.fedml/fedml_trace`",
    )


def tracks(args: Any) -> bool:
    """Return whether the user asks for FedML's own tracking platform (`using_mlops` or `enable_tracking`).

    Args:
        args: FedML's args.
    """
    return bool(getattr(args, "using_mlops", False)) or getattr(args, "enable_tracking", False) is True
