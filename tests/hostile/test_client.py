"""A hostile server: a client under the plug-in decodes what it is sent as the server does, and lives."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from hostile.cases import cases
from transports import CHECK, Network, pickled


def test_nothing_that_cannot_be_decoded_reaches_a_client_or_runs_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(Network(tmp_path, client_args={"messages_per_second": 1000, "decode_seconds": 2})) as made:
        client, at_client = made.start(1, model_bytes=1_000_000)
        undecodable = [case for case in cases("message") if case.undecodable]
        for number, case in enumerate(undecodable, 1):
            made.post(case.build(), 0, rank=1)
            made.post(pickled(CHECK, 0, 1), 0, rank=1)
            assert at_client.get().get_type() == CHECK, case.name
            assert client.complaints.counts.total() == number, case.name
    assert len(undecodable) > 50
    assert not (tmp_path / "the-server-was-mine").exists()
