"""A hub folder with a small model, made without training."""

import json
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_bccmt import BCCMT
from speechbrain_bccmt.scoring.calibration import Calibration

SPEAKERS = ["ada", "bela", "carl"]
# The encoder of the package, small enough to embed a second of audio in a few ms.
ENCODER = dict(
    channels=[10, 10, 10, 10], depths=[1, 1, 1, 1], expansions=[10, 10, 10, 10], heads=[1, 1, 1, 1], groups=2
)
YAML = """\
sample_rate: 16000
compute_features: !new:speechbrain_bccmt.features.KaldiFbank
    sample_rate: !ref <sample_rate>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain_bccmt.BCCMT
    channels: [10, 10, 10, 10]
    depths: [1, 1, 1, 1]
    expansions: [10, 10, 10, 10]
    heads: [1, 1, 1, 1]
    groups: 2
    embedding_size: 16
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 16
    out_neurons: 3
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
"""


def write_hub_folder(folder: Path, calibration: Calibration | None = None) -> Path:
    """Write a hub folder with a model of random parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    encoder = BCCMT(**ENCODER, embedding_size=16)
    for parameter in encoder.parameters():  # residual branches start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save(encoder.state_dict(), folder / "embedding_model.ckpt")
    torch.save(Classifier(16, out_neurons=3).state_dict(), folder / "classifier.ckpt")
    labels = CategoricalEncoder()
    labels.update_from_iterable(SPEAKERS)
    labels.save(folder / "label_encoder.txt")
    (folder / "hyperparams.yaml").write_text(YAML, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"embedding_size": 16}))
    if calibration is not None:
        calibration.save(folder / "calibration.json")
    return folder


def write_hyperparams(folder: Path, builder: str, **options) -> None:
    """Write a training's YAML with SpeechBrain's features and an encoder from one of this package's builders."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["compute_features: !new:speechbrain.lobes.features.Fbank {n_mels: 80}"]
    lines.append("mean_var_norm: !new:speechbrain.processing.features.InputNormalization")
    lines.append("    norm_type: sentence\n    std_norm: False")
    lines.append(f"embedding_model: !apply:speechbrain_bccmt.{builder} {json.dumps(options)}")
    (folder / "hyperparams.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


TOKEN_YAML = """\
class_of: speaker-phrase
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain_bccmt.TokenEmbedder
    readout: {readout}
"""
PHONETIC_YAML = """\
    positions: phonetic
    phonetic_size: 6
    phonetic_model: !new:speechbrain.nnet.containers.LengthsCapableSequential
        bottleneck: !new:speechbrain.nnet.linear.Linear
            input_size: 80
            n_neurons: 6
"""


def write_token_folder(folder: Path, readout: str = "class", phonetic: bool = False) -> Path:
    """Write the output of a TokenEmbedder training, with random parameters that make it attend to some frames."""
    text = TOKEN_YAML.format(readout=readout)
    if phonetic:
        text += PHONETIC_YAML
    torch.manual_seed(0)
    encoder = load_hyperpyyaml(text)["embedding_model"]
    for name, parameter in encoder.named_parameters():
        if "attention.query" in name or "attention.key" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    # Running statistics of speech-like features; without them activations would be unbounded.
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        for _ in range(2):
            encoder.train()(10 * torch.randn(4, 60, 80) + 10 * torch.randn(4, 1, 80))
    labels = CategoricalEncoder()
    labels.update_from_iterable(SPEAKERS)
    save = folder / "save"
    save.mkdir(parents=True)
    labels.save(save / "label_encoder.txt")
    classifier = Classifier(encoder.embedding_size, out_neurons=3)
    checkpointer = Checkpointer(save, {"embedding_model": encoder, "classifier": classifier})
    checkpointer.save_checkpoint(meta={"eer": 0.1}, name="best")
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    return folder
