"""A federation over gRPC with five honest puppets and a hostile one that sends a case of the corpus in each round."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from hostile.cases import Case
from hostile.network import CLAIM, MINE, State, honest, offsets
from hostile.pickles import ME, UPLOAD
from patience import PATIENCE
from silo_processes import FINISH, INIT, SYNC, Puppet, Silo, wait_for

MAIN = Path(__file__).with_name("main.py")
HONEST = range(1, ME)


@dataclass(frozen=True)
class Played:
    """What became of a round with a case.

    Attributes:
        case: the case.
        number: the round.
        model: the global model after it; None if the server did not get there.
        report: what the record gives as the reason, and what the log said in that round.
        end: how the server stopped; None if it did not.
    """

    case: Case | None
    number: int
    model: State | None = None
    report: str = ""
    end: str | None = None


class Federation:
    """A server process and its puppets, for so many rounds and one more."""

    def __init__(self, folder: Path, rounds: int, defense: dict[str, Any] | None, **server: Any) -> None:
        section = {"enable_defense": defense is not None, **(defense or {})}
        self.silo = Silo(folder, clients=ME, rounds=rounds + 1, defense_args=section, **server)
        self.silo.main = MAIN
        self.folder = folder
        self.silo.start_server()
        self.honest = [Puppet(self.silo, rank) for rank in HONEST]
        self.hostile = Puppet(self.silo, ME)
        for puppet in (*self.honest, self.hostile):
            puppet.online()
        for puppet in self.honest:
            puppet.receive(INIT)

    def close(self) -> None:
        for puppet in (*self.honest, self.hostile):
            puppet.close()
        self.silo.close()

    def play(self, case: Case | None, number: int) -> Played:
        """One round: the hostile client sends its case, if there is one, before the last honest upload comes."""
        start = self.silo.log.stat().st_size
        try:
            self._uploads(number, case)
            models = [self._next_model(puppet) for puppet in self.honest]
        except (AssertionError, grpc.RpcError) as error:
            return Played(case, number, report=self._log(start), end=self._end(str(error)))
        return Played(case, number, models[0], f"{self._reason(number)}\n{self._log(start)}")

    def _uploads(self, number: int, case: Case | None) -> None:
        models = [honest(offset) for offset in offsets(number)]
        for puppet, model in list(zip(self.honest, models, strict=True))[:-1]:
            patiently(lambda puppet=puppet, model=model: puppet.upload(model, CLAIM))
        if case is not None:
            self._send(case)
        # Without a time limit a round waits for all: an upload that is left out ends it if the case is no upload.
        # It says its round, since it may come when that is over.
        self._try(lambda: self.hostile.upload({}, CLAIM, round_number=number))
        patiently(lambda: self.honest[-1].upload(models[-1], CLAIM))

    def _send(self, case: Case) -> None:
        if case.group == "message":
            self._try(lambda: self.hostile.send_bytes(case.build()))
        elif case.group == "claim":
            self._try(lambda: self.hostile.send(UPLOAD, model_params=honest(MINE), num_samples=case.build()))
        else:
            self._try(lambda: self.hostile.send(UPLOAD, model_params=case.build(honest(MINE)), num_samples=CLAIM))

    def _try(self, send: Any) -> None:
        """The server may answer a hostile call with an error."""
        with contextlib.suppress(grpc.RpcError):
            send()

    def _next_model(self, puppet: Puppet) -> State:
        def there() -> bool:
            return not puppet.inbox.empty() or self.silo.server.poll() is not None

        wait_for(there, "the next round", PATIENCE)
        assert not puppet.inbox.empty(), "the server has ended"
        return puppet.receive(SYNC).get("model_params")

    def _end(self, error: str) -> str:
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self.silo.server.poll() is not None, "the server's end", 2.0)
        code = self.silo.server.poll()
        return f"it hung: {error[:200]}" if code is None else f"exit status {code}"

    def _log(self, start: int) -> str:
        with self.silo.log.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    def _reason(self, number: int) -> str:
        for line in (self.folder / "record" / "rounds.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["round"] == number:
                mine = [client for client in record["clients"] if client["client"] == ME]
                return str(mine[0]["reason"]) if mine else ""
        return ""

    def finish(self, number: int) -> None:
        """The last round, without a case; then the server ends by itself."""
        self._uploads(number, None)
        for puppet in self.honest:
            puppet.receive(SYNC, FINISH)
        for puppet in (*self.honest, self.hostile):
            puppet.finished()
        self.silo.wait_for_end()

    def memory(self) -> float:
        """The most that the server has used, in MB."""
        status = Path(f"/proc/{self.silo.server.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def patiently(send: Callable[[], None]) -> None:
    """Try again while the server has no room, as clients under the plug-in do."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return send()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
        time.sleep(0.1)


@contextlib.contextmanager
def federation(folder: Path, rounds: int, defense: dict[str, Any] | None, **server: Any) -> Iterator[Federation]:
    """Start one, and leave no process behind."""
    folder.mkdir()
    made = Federation(folder, rounds, defense, **server)
    try:
        yield made
    finally:
        made.close()


def play_all(folder: Path, cases: Sequence[Case], defense: dict[str, Any] | None) -> tuple[list[Played], float]:
    """All cases in one process, as far as it lives.

    Returns:
        What was played, the case that ended it last; and by how many MB the server's peak memory grew.
    """
    played = []
    with federation(folder, len(cases), defense) as made:
        for number, case in enumerate(cases, 1):
            played.append(made.play(case, number))
            if number == 1 and played[0].end is None:
                before = made.memory()
            if played[-1].end is not None:
                return played, 0.0
        after = made.memory()
        made.finish(len(cases) + 1)
        return played, after - before
