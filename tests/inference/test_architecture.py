"""Descriptions of models: nothing but networks is built, and every experiment's model is."""

import io
import json

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_bccmt.inference.architecture import NEEDED, build, read_architecture, to_yaml
from tests.recipes.test_recipes import ROOT
from tests.tiny_hub_folder import YAML

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
    "module of a module": "a: !apply:speechbrain_bccmt.corpora.m4a.os.system [[mkdir, {}]]",
    "import of a module": "a: !apply:speechbrain_bccmt.inference.parameters.torch.hub.load [{}]",
    "import of torch": "a: !apply:torch.nn.functional.os.mkdir [{}]",
    "function of ours": "a: !apply:speechbrain_bccmt.files.temporary_sibling [{}]",
    "class that is no network": "a: !new:speechbrain_bccmt.audio.recording.Path [{}]",
    "shell of SpeechBrain": "a: !apply:speechbrain.utils.superpowers.run_shell ['mkdir {}']",
    "attribute": "b: x\na: !ref <b.upper>",
    "prefix alone": "a: !new:torch.nnos.x [{}]",
}


# As a part of a model, below which the code would be built.
PARTS = YAML[: YAML.index("embedding_model:")]


def load(folder, text, name="hyperparams.yaml"):
    (folder / name).write_text(text)
    found = read_architecture(folder / name)
    return {part: build(found[part], name, trusted=False) for part in NEEDED}


@pytest.mark.parametrize("name", ATTACKS)
def test_code_beside_the_model_is_left_alone_and_in_the_model_refused(tmp_path, name):
    marker = tmp_path / "marker"
    text = ATTACKS[name].format(marker)
    if not text.startswith(("%", "?")):
        inside = PARTS + "embedding_model:\n    " + text.replace("\n", "\n    ").replace("a: ", "weight: ", 1)
        with pytest.raises(ValueError, match="hyperparams.yaml"):
            load(tmp_path, inside)
        instead = PARTS + text.replace("a: ", "embedding_model: ", 1)
        with pytest.raises(ValueError, match="hyperparams.yaml"):
            load(tmp_path, instead)
    try:
        load(tmp_path, YAML + text.partition("---\n")[2] if text.startswith("%") else YAML + text)
    except ValueError:
        pass  # what cannot be read without running it is refused
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


@pytest.mark.parametrize("text", ["a: [", "\x00", "a: !ref <b>", "a: b: c", "&x a: *y", ""])
def test_broken_yaml(tmp_path, text):
    with pytest.raises(ValueError, match="hyperparams.yaml (is no valid YAML of a model|lacks)"):
        load(tmp_path, text)


@pytest.mark.parametrize("change", ["[", '{"modules": 1}', "{}", '{"modules": {}}', "\x00"])
def test_broken_config(tmp_path, change):
    with pytest.raises(ValueError, match="config.json (is no valid JSON of a model|lacks)"):
        load(tmp_path, change, "config.json")


@pytest.mark.parametrize(
    "path", ["os.system", "speechbrain_bccmt.files.temporary_sibling", "torch.nnos.x", "torch.nn.Lin"]
)
def test_a_config_cannot_name_what_is_no_network(tmp_path, path):
    (tmp_path / "hyperparams.yaml").write_text(YAML)
    parts = {part: read_architecture(tmp_path / "hyperparams.yaml")[part] for part in NEEDED}
    hostile = parts | {"embedding_model": {"class": path, "options": []}}
    with pytest.raises(ValueError, match=f"config.json asks for '{path}'"):
        load(tmp_path, json.dumps({"modules": hostile}), "config.json")
    assert load(tmp_path, json.dumps({"modules": parts}), "config.json").keys() == set(NEEDED)


def test_options_of_other_networks(tmp_path):
    text = (
        PARTS
        + """
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    lin_neurons: !ref <d> * 2
    channels: [64, 64, 64, 64, 192]
    kernel_sizes: [5, 3, 3, 3, 1]
    activation: !name:torch.nn.ReLU
d: 32
"""
    )
    assert load(tmp_path, text)["embedding_model"](torch.rand(2, 50, 80)).shape == (2, 1, 64)


@pytest.mark.parametrize(
    "name", ["bccmt", "bccmt_distilled", "bccmt_tiny_kd", "token", "token_kd", "token_phonetic"]
)
def test_the_models_of_the_experiments_are_built_as_hyperpyyaml_builds_them(tmp_path, name):
    text = (ROOT / "hparams" / f"{name}.yaml").read_text().replace("!PLACEHOLDER", "x")
    built = load(tmp_path, text)
    found = read_architecture(tmp_path / "hyperparams.yaml")
    expected = load_hyperpyyaml(io.StringIO("\n".join(f"{part}: {to_yaml(found[part])}" for part in NEEDED)))
    theirs = load_hyperpyyaml(io.StringIO(text), {"output_folder": str(tmp_path)})
    for part in NEEDED:
        assert str(built[part]) == str(expected[part]) == str(theirs[part])
