"""A quiet, offline start, in a process of its own with a home and a working folder of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import socket, sys, logging

def no_network(*args, **kwargs):
    print("NETWORK", args)
    raise OSError("offline")

socket.socket.connect = no_network
socket.getaddrinfo = no_network
write, hook = sys.stdout.write, sys.excepthook
import fedml_gradcam_ae
fedml_gradcam_ae.register()
import fedml
from simulation import simulate
simulate(**{extra})
assert sys.stdout.write == write, "stdout was replaced"
assert sys.excepthook is hook, "the excepthook was replaced"
logging.info("the script's own line")
print("done")
"""


def run(tmp_path, extra=""):
    tests = Path(__file__).parents[1]
    environment = {
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": f"{tests.parent}:{tests}:{tests / 'hooks'}",
        "PATH": "/usr/bin:/bin",
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    code = CODE.replace("{extra}", extra or "{}")
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path / "work",
        env=environment,
        check=False,
    )


def test_no_request_no_folder_no_replaced_stdout(tmp_path) -> None:
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "done\n"
    assert result.stderr.splitlines() == [
        "no defense and no attack: FedML's own average of the uploads",
        *(line for line in result.stderr.splitlines() if line.startswith("round ")),
        "the script's own line",
    ]
    assert list((tmp_path / "work").iterdir()) == []
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("tracking", ["using_mlops", "enable_tracking"])
def test_who_asks_for_tracking_gets_fedmls_own_init(plugin, monkeypatch, tracking) -> None:
    import fedml

    from fedml_gradcam_ae.hooks import startup
    from tiny import fedml_args

    called = []
    monkeypatch.setattr(fedml.core.mlops, "init", lambda args, should_init_logs: called.append(should_init_logs))
    monkeypatch.setattr(fedml, "get_env_version", lambda: "release")
    fedml.init(fedml_args(**{tracking: True}))
    fedml.init(fedml_args())
    assert called == [True, False]
    assert startup.tracks(fedml_args(**{tracking: True}))
