"""Two commands at once, and workers that are left alone."""

import subprocess
import sys

import pytest
import yaml

from benchmark import __main__ as command
from benchmark.running import lock
from benchmark.running.lock import locked
from fedml_gradcam_ae.contract.settings import SettingsError

CONFIG = {
    "name": "locked",
    "data": {"name": "digits"},
    "model": {"name": "small_cnn"},
    "federation": {
        "clients": 2,
        "per_round": 2,
        "rounds": 1,
        "local_epochs": 1,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "batch_size": 64,
    },
    "attacks": ["none"],
    "defenses": ["none"],
    "seeds": [0],
}
ALONE = """
import sys, time
from benchmark.running.workers import attended
tasks = attended(sys.stdin)
print(next(tasks).strip(), flush=True)
time.sleep(600)
"""
HOLDER = "import sys; print('there', flush=True); sys.stdin.read()"


def test_two_commands_on_one_folder(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(CONFIG))
    with locked(out):
        assert command.main(["run", str(config), "--out", str(out)]) == 2
        assert "out is in use by the benchmark of process" in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == [".lock"]
    with locked(out):
        pass


def test_the_folder_is_held_until_the_last_worker_has_ended(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with locked(tmp_path) as held:
        worker = subprocess.Popen(
            [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(held,)
        )
        assert worker.stdout.readline() == b"there\n"
    # As if the main process had died: its own descriptor is closed.
    with pytest.raises(SettingsError, match="wait until it has ended, or choose another --out"), locked(tmp_path):
        pass
    assert capsys.readouterr().out.count("waiting up to 0.2 s") == 1
    worker.communicate()
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks(tmp_path, capsys, monkeypatch) -> None:
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path):
        assert "let no other command write into it at the same time" in capsys.readouterr().out


def test_a_worker_ends_in_the_middle_of_its_work_when_nobody_is_there_to_answer() -> None:
    with subprocess.Popen([sys.executable, "-c", ALONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdin.write(b"a run\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == b"a run\n"
        assert worker.poll() is None
        worker.stdin.close()
        assert worker.wait(20) == 0
