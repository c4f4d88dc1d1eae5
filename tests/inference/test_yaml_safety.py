"""YAMLs that would run code are refused, and those of models are not."""

import io
from pathlib import Path

import pytest
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML as YAMLParser

from speechbrain_bccmt.inference.source import NETWORK_KEYS, format_nodes
from speechbrain_bccmt.inference.yaml_safety import check_references, check_yaml
from tests.tiny_hub_folder import YAML

ROOT = Path(__file__).parents[1]
# {} stands for a folder that the code would make.
ATTACKS = {
    "apply": "a: !apply:os.mkdir [{}]",
    "new": "a: !new:subprocess.Popen [[mkdir, {}]]",
    "name": "a: !name:os.mkdir [{}]",
    "applyref": "a: !applyref:os.mkdir [{}]",
    "module": "a: !module:os",
    "python tag": "a: !!python/object/apply:os.mkdir [{}]",
    "python tag by directive": "%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!object/apply:os.mkdir [{}]",
    "verbatim python tag": "a: !<tag:yaml.org,2002:python/object/apply:os.mkdir> [{}]",
    "verbatim tag": "a: !<!apply:os.mkdir> [{}]",
    "escaped tag": "a: !ap%70ly:os.mkdir [{}]",
    "text in parentheses": 'a: "(!!python/object/apply:os.mkdir [{}])"',
    "plain text in parentheses": "a: (1, !!python/object/apply:os.mkdir [{}])",
    "put together by references": "b: '!!python/object/apply:os.mkdir [{}]'\na: !ref (<b>)",
    "tuple": "a: !tuple ' !!python/object/apply:os.mkdir [{}] '",
    "key": "? !apply:os.mkdir [{}]\n: 1",
    "python tag as key": "? !!python/object/apply:os.mkdir [{}]\n: 1",
    "hidden below": "a: [1, {{b: !apply:os.mkdir [{}]}}]",
    "argument of a network": "a: !new:torch.nn.Linear [!apply:os.mkdir [{}], 2]",
    "include": "a: !include:{}/other.yaml",
    "module of a module": "a: !apply:speechbrain_bccmt.corpora.m4a.subprocess.run [[mkdir, {}]]",
    "import of a module": "a: !apply:speechbrain_bccmt.inference.parameters.torch.hub.load [{}]",
    "import of torch": "a: !apply:torch.nn.functional.os.mkdir [{}]",
    "function of ours": "a: !apply:speechbrain_bccmt.files.temporary_sibling [{}]",
    "class that is no network": "a: !new:speechbrain_bccmt.audio.recording.Path [{}]",
    "shell of SpeechBrain": "a: !apply:speechbrain.utils.superpowers.run_shell ['mkdir {}']",
    "attribute": "b: x\na: !ref <b.upper>",
    "prefix alone": "a: !new:torch.nnos.x [{}]",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused(tmp_path, name):
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match="m.yaml would run '.*' on loading"):
        check_yaml(ATTACKS[name].format(marker), "m.yaml")
    assert not marker.exists()


REAL = [
    "apply",
    "applyref",
    "python tag",
    "verbatim tag",
    "escaped tag",
    "plain text in parentheses",
    "tuple",
]


@pytest.mark.parametrize("name", [*REAL, "argument of a network", "shell of SpeechBrain"])
def test_the_attacks_are_real(tmp_path, name):
    """HyperPyYAML alone runs them."""
    marker = tmp_path / "marker"
    try:
        load_hyperpyyaml(ATTACKS[name].format(marker))
    except Exception:  # after the fact
        pass
    assert marker.exists()


@pytest.mark.parametrize("name", ["applyref", "include"])
def test_references_alone(name):
    with pytest.raises(ValueError, match="m.yaml would run"):
        check_references(ATTACKS[name].format("x"), "m.yaml")
    check_references(ATTACKS["apply"].format("x"), "m.yaml")


@pytest.mark.parametrize("text", ["a: [", "\x00", "a: !ref <b>", "a: b: c", "&x a: *y"])
def test_broken_yaml(text):
    with pytest.raises(ValueError, match="m.yaml is no valid YAML: "):
        check_yaml(text, "m.yaml")


def test_models_pass():
    check_yaml(YAML, "m.yaml")
    check_yaml(
        """
a: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [64, 64, 64, 64, 192]
    activation: !name:torch.nn.ReLU
    path: owner/model
    sizes: (1, 2)
b: !apply:speechbrain_bccmt.bccmt_tiny
    attention: temporal
c: !new:speechbrain.lobes.features.Fbank {n_mels: !ref <d>}
d: 80
e: !ref <d> * 2
f: "not hidden: !"
""",
        "m.yaml",
    )


@pytest.mark.parametrize("path", sorted((ROOT / "hparams").glob("[bt]*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_models_pass(path):
    nodes = read_nodes_of_experiment(path)
    check_yaml(format_nodes({name: nodes[name] for name in NETWORK_KEYS}), path.name)


def read_nodes_of_experiment(path):
    text = path.read_text().replace("!PLACEHOLDER", "x")
    stream = io.StringIO(text)
    stream.name = str(path)  # tells where included files are
    return YAMLParser().load(resolve_references(stream))
