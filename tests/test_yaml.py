"""What a YAML file may not hold, and what is said about it."""

import pytest
import yaml

from fedml_gradcam_ae.contract import strict_yaml
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.yaml_file import read_mapping, read_sections

SECTION = "defense_args: {enable_defense: true}\n"


def read(tmp_path, content, reader=read_sections):
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return reader(path) if reader is read_sections else reader(path, "train_args")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SECTION + "\ndefense_args:\n  enable_defense: false\n", ["line 3", "'defense_args'", "line 1"]),
        ("train_args:\n  epochs: 1\n  lr: 2\n  epochs: 3\n", ["line 4", "'epochs'", "line 2"]),
        ("a: {b: {c: [{d: 1, d: 1}]}}", ["line 1", "'d'"]),
        ("a: {yes: 1, true: 2}", ["'true'"]),  # YAML 1.1: the same key
        ("a: {1: 1, 0x1: 2}", ["'0x1'"]),
        ("base: &b {x: 1}\na:\n  <<: *b\n  <<: *b\n", ["line 4", "'<<'"]),
        ("[" * 100_000, ["50 levels"]),
        ("a: " + "[" * 60 + "]" * 60, ["50 levels"]),
        ("a: &a [*a]", ["50 levels"]),
        ("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n"
         + "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 10)), ["100,000 values"]),
        ("a: \xe9".encode("latin-1"), ["UTF-8"]),
        ("a: b".encode("utf-16"), ["UTF-8"]),
        (b"a: \0", ["not YAML"]),
        ("a: {[1]: 2}", ["unhashable"]),
        ("a: 2024-99-99", ["month must be in"]),
        ("a: !!python/object/apply:os.system [ls]", ["could not determine a constructor"]),
        ("a: 1\n---\na: 2\n", ["single document"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reader", [read_mapping, read_sections])
def test_what_is_refused(tmp_path, content, words, reader) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, content, reader)
    message = str(caught.value)
    assert "config.yaml" in message
    assert len(message) < 500
    assert all(word in message for word in words), message


def test_merge_keys_work_and_are_overridden(tmp_path) -> None:
    found = read(tmp_path, "base: &b {x: 1, y: 2}\na:\n  <<: *b\n  x: 3\nb:\n  <<: [*b, {z: 0}]\n", read_mapping)
    assert found == {"base": {"x": 1, "y": 2}, "a": {"x": 3, "y": 2}, "b": {"x": 1, "y": 2, "z": 0}}


@pytest.mark.parametrize(
    "text", ["", "a: 1", "a: [1, .inf, 2020-01-01, null, yes]", "- a\n- {b: c}", "a: &x [1]\nb: *x"]
)
def test_other_text_is_read_as_pyyaml_reads_it(text) -> None:
    assert strict_yaml.load(text) == yaml.safe_load(text)


def test_a_key_in_two_sections(tmp_path) -> None:
    """FedML throws the sections together, so that the later one wins."""
    with pytest.raises(SettingsError, match="'enable_defense' stands in the sections defense_args and train_args"):
        read(tmp_path, SECTION + "train_args: {enable_defense: false}")
    assert read(tmp_path, SECTION + "train_args: {enable_defense: true}")
    both = "server_args: {tls: {key: a}}\nclient_args: {tls: {key: b}}\n"
    assert read(tmp_path, both)["client_args"] == {"tls": {"key": "b"}}


def test_a_key_in_two_of_fedmls_own_sections(tmp_path) -> None:
    """One of FedML's examples has it: what its own sections mean is FedML's to say."""
    sections = read(tmp_path, "train_args: {batch_size: 10}\nfhe_args: {batch_size: 8192}\n")
    assert sections["fhe_args"] == {"batch_size": 8192}
