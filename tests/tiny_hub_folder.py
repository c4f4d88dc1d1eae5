"""A hub folder with a small model, made without training."""

import json
from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.models.ECAPA_TDNN import Classifier

from speechbrain_bccmt import BCCMT
from speechbrain_bccmt.scoring.calibration import Calibration

SPEAKERS = ["ada", "bela", "carl"]
# The encoder of the package, in a size that embeds a second in some ms.
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
