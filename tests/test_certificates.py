"""python -m fedml_gradcam_ae certificates, judged by openssl's own verification in the ssl module."""

import contextlib
import ssl
import stat
import subprocess
import sys

import pytest

pytest.importorskip("cryptography", reason="pip install 'fedml-gradcam-ae[grpc]'")

from fedml_gradcam_ae.hooks.cross_silo import certificates


def test_the_files_and_their_modes(tmp_path, capsys) -> None:
    out = tmp_path / "certs"
    assert certificates.main(["--clients", "2", "--out", str(out)]) == 0
    names = ["authority", "rank-0", "rank-1", "rank-2"]
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{n}{s}" for n in names for s in (".pem", ".key"))
    assert {stat.S_IMODE((out / f"{name}.key").stat().st_mode) for name in names} == {0o600}
    advice = capsys.readouterr().out
    assert f"certificate: {out}/rank-{{rank}}.pem" in advice
    assert advice.count("authority:") == 2


def test_the_advice_is_yaml_that_is_taken(tmp_path, capsys) -> None:
    import yaml

    from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TLSFiles

    certificates.main(["--clients", "1", "--out", str(tmp_path / "certs")])
    text = capsys.readouterr().out
    sections = yaml.safe_load(text[text.index("server_args:") : text.index("Give each")])
    assert set(sections) == {"server_args", "client_args"}
    for section in sections.values():
        TLSFiles(**section["tls"])


def handshake(server_files, client_files, name):
    """Both sides in memory; raises ssl.SSLError if one does not believe the other."""
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    server_context.verify_mode = ssl.CERT_REQUIRED
    for context, (folder, rank) in ((server_context, server_files), (client_context, client_files)):
        context.load_cert_chain(folder / f"rank-{rank}.pem", folder / f"rank-{rank}.key")
        context.load_verify_locations(folder / "authority.pem")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client_context.wrap_bio(to_client, to_server, server_hostname=name),
        server_context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return [side.getpeercert()["subjectAltName"] for side in sides]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = [tmp_path_factory.mktemp(name) for name in ("ours", "theirs")]
    for folder in made:
        certificates.make(folder, clients=1, days=3)
    return made


def test_both_sides_believe_each_other(folders) -> None:
    ours, _ = folders
    names = handshake((ours, 0), (ours, 1), "rank-0.fedml")
    assert names == [(("DNS", "rank-0.fedml"),), (("DNS", "rank-1.fedml"),)]


def test_another_name_and_another_authority_are_not_believed(folders) -> None:
    ours, theirs = folders
    with pytest.raises(ssl.SSLError, match="ostname mismatch"):
        handshake((ours, 1), (ours, 1), "rank-0.fedml")
    with pytest.raises(ssl.SSLError):
        handshake((ours, 0), (theirs, 1), "rank-0.fedml")


def test_nothing_is_overwritten(tmp_path, capsys) -> None:
    (tmp_path / "rank-1.key").write_text("precious")
    assert certificates.main(["--clients", "2", "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["rank-1.key"]
    assert (tmp_path / "rank-1.key").read_text() == "precious"
    assert f"error: {tmp_path}/rank-1.key exists" in capsys.readouterr().err


def test_a_symbolic_link_to_nothing_is_in_the_way_too(tmp_path, capsys) -> None:
    (tmp_path / "rank-2.pem").symlink_to(tmp_path / "nothing")
    assert certificates.main(["--clients", "2", "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["rank-2.pem"]
    assert f"error: {tmp_path}/rank-2.pem exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clients", "0", "--out", "x"], "--clients must be from 1 to 10000, found 0"),
        (["--clients", "2", "--out", "x", "--days", "0"], "--days must be from 1 to 36500, found 0"),
        (["--out", "x"], "--clients"),
        (["--clients", "2", "--out", ""], "--out must name a folder, found an empty text"),
        (["--clients", "2", "--out", "a{rank}"], "--out must hold no { or }, which have a meaning"),
        (["--clients", "2", "--out", "a}"], "found 'a}'"),
    ],
)
def test_mistakes_on_the_command_line(arguments, words, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        certificates.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_the_command_line_needs_neither_torch_nor_fedml(tmp_path) -> None:
    code = (
        "import sys; from fedml_gradcam_ae.__main__ import main; "
        f"main(['certificates', '--clients', '1', '--out', {str(tmp_path / 'c')!r}]); "
        "sys.exit(bool({'torch', 'fedml', 'grpc'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_that_cannot_be_made(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert certificates.main(["--clients", "1", "--out", str(tmp_path / "file" / "certs")]) == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err
