"""200 rounds with four plain clients that are killed and started again at random.

Minutes long, so only on demand: python -m pytest -m soak -s
"""

import random
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from silo_processes import Silo, wait_for

ROUNDS, CLIENTS = 200, 4
SECONDS_BETWEEN_KILLS = (3.0, 10.0)


def memory_of(process) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


@pytest.mark.soak
def test_200_rounds_with_clients_that_die_at_random(tmp_path) -> None:
    draw = random.Random(0)
    silo = Silo(
        tmp_path, CLIENTS, ROUNDS, client_timeout=1.0, minimum_clients=1, checkpoint_dir=str(tmp_path / "state")
    )
    memory: dict[int, float] = {}
    kills = 0
    try:
        silo.start_server()
        clients = {rank: silo.start_client(rank) for rank in range(1, CLIENTS + 1)}
        wait_for(lambda: (tmp_path / "record" / "rounds.jsonl").exists(), "the first round", log=silo.log)
        next_kill = time.monotonic()
        last_progress = time.monotonic()
        while silo.server.poll() is None:
            time.sleep(0.2)
            done = len(silo.rounds())
            if done not in memory and done < ROUNDS:
                memory[done] = memory_of(silo.server)
                last_progress = time.monotonic()
            assert time.monotonic() - last_progress < 90, silo.log.read_text()[-3000:]
            for rank, process in clients.items():
                if process.poll() is not None and done < ROUNDS:
                    clients[rank] = silo.start_client(rank)
            if time.monotonic() > next_kill and done < ROUNDS - 5:
                victim = clients[draw.randint(1, CLIENTS)]
                if victim.poll() is None:
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
                    kills += 1
                next_kill = time.monotonic() + draw.uniform(*SECONDS_BETWEEN_KILLS)
        assert silo.server.returncode == 0, silo.log.read_text()[-3000:]
        rounds = silo.rounds()
    finally:
        silo.close()
    assert [line["round"] for line in rounds] == list(range(1, ROUNDS + 1))
    sizes = [len(line["clients"]) for line in rounds]
    early = max(size for done, size in memory.items() if done <= 40)
    late = max(size for done, size in memory.items() if done > 160)
    print(f"\n{ROUNDS} rounds, {kills} kills; uploads per round: {sum(sizes) / ROUNDS:.2f} of {CLIENTS}")
    print(f"memory of the server: {min(memory.values()):.0f} to {max(memory.values()):.0f} MB; ", end="")
    print(f"at most {early:.0f} MB in rounds 1-40, {late:.0f} MB in rounds 161-200")
    assert kills > 10
    assert late < early * 1.1
