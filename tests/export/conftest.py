"""A training folder with a model that behaves like a trained one, and speech of real or synthetic origin."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_bccmt import bccmt_tiny
from speechbrain_bccmt.features import KaldiFbank
from speechbrain_bccmt.inference.embedding import read_utterance

ROOT = Path(__file__).resolve().parents[2]
SPEAKERS = ["ann", "bob", "cid", "dora"]

HPARAMS = """\
# What a training leaves, with more in it than inference needs.
seed: 1
output_folder: {folder}
data_folder: /nowhere
number_of_epochs: 7
compute_features: &id001 !new:{front_end}
mean_var_norm: &id002 !new:speechbrain.processing.features.InputNormalization
  norm_type: sentence
  std_norm: false
embedding_model: &id003 !apply:speechbrain_bccmt.bccmt_tiny

  attention: temporal
  n_mels: 80
# The number of speakers comes from the data.
classifier: !name:speechbrain.lobes.models.ECAPA_TDNN.Classifier
  input_size: 192
modules:
  compute_features: *id001
  mean_var_norm: *id002
  embedding_model: *id003
checkpointer: !new:speechbrain_bccmt.training.checkpoints.AtomicCheckpointer
  checkpoints_dir: {folder}/save
  recoverables:
    embedding_model: *id003
"""
KALDI = "speechbrain_bccmt.features.KaldiFbank\n  n_mels: 80\n  f_max: 7600\n  centred: True"
FBANK = "speechbrain.lobes.features.Fbank\n  n_mels: 80"


def synthetic_speech(n_samples: int, seed: int) -> torch.Tensor:
    """Harmonics of a voice of its own, in syllables, over faint noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(n_samples) / 16000
    pitch = 2 * np.pi * np.cumsum(generator.uniform(90, 250) * (1 + 0.1 * np.sin(5 * time))) / 16000
    tilt = generator.uniform(0.6, 1.6)
    voice = sum(np.sin(k * pitch) / k**tilt for k in range(1, 30))
    voice = voice * np.clip(np.sin(generator.uniform(10, 20) * time), 0.05, 1)
    return torch.from_numpy(0.05 * voice + 1e-4 * generator.standard_normal(n_samples)).float()


def make_training_folder(folder: Path, front_end: str, speeds: int = 1) -> Path:
    """Write the output of a training without training: statistics of speech, and non-zero branches."""
    torch.manual_seed(1)
    model = bccmt_tiny()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or not parameter.any():
            torch.nn.init.normal_(parameter, 0.2 if name.endswith("norm.weight") else 0.0, 0.1)
    torch.nn.init.zeros_(model.embedding.bias)
    # Recordings start with room noise, not with voices. Without such noise in the statistics, it causes activations in
    # the thousands, unlike in any trained model; attention falls on one frame, and rounding decides which.
    wavs = [synthetic_speech(16000, seed) for seed in range(12)] + list(0.005 * torch.randn(6, 16000))
    # And voices rise out of the noise, far louder than the mean.
    wavs += [torch.cat([0.2 * wavs[12 + seed][:12000], 3 * wavs[seed][12000:]]) for seed in range(6)]
    features = KaldiFbank(f_max=7600)(torch.stack(wavs))
    # Decibels, which SpeechBrain's features are in, are natural logarithms times 4.34.
    features = (features - features.mean(1, keepdim=True)) * (4.34 if front_end == FBANK else 1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        for _ in range(3):
            model.train()(features)
    (folder / "save").mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(HPARAMS.format(folder=folder, front_end=front_end))
    classifier = torch.nn.Module()
    classifier.weight = torch.nn.Parameter(torch.randn(len(SPEAKERS) * speeds, 192))
    labels = "".join(f"'{name}' => {index}\n" for index, name in enumerate(SPEAKERS))
    (folder / "save" / "label_encoder.txt").write_text(f"{labels}================\n'starting_index' => 0\n")
    checkpointer = Checkpointer(folder / "save", {"embedding_model": model, "classifier": classifier})
    worse = {name: value.clone() for name, value in model.state_dict().items()}
    checkpointer.save_checkpoint(meta={"eer": 0.05}, name="best")
    model.load_state_dict({name: value * 0 for name, value in worse.items()})
    checkpointer.save_checkpoint(meta={"eer": 0.5}, name="later")
    return folder


@pytest.fixture(scope="session")
def training_folder(tmp_path_factory) -> Path:
    """Return a training on SpeechBrain's features, at three speeds."""
    return make_training_folder(tmp_path_factory.mktemp("fbank") / "training", FBANK, speeds=3)


@pytest.fixture(scope="session")
def kaldi_folder(tmp_path_factory) -> Path:
    """Return a training on the features of sherpa-onnx."""
    return make_training_folder(tmp_path_factory.mktemp("kaldi") / "training", KALDI)


@pytest.fixture(scope="session", name="synthetic_speech")
def _synthetic_speech():
    return synthetic_speech


@pytest.fixture(params=["synthetic", "real"])
def speech(request):
    """Return a function from length in samples and number to a waveform (samples,)."""
    if request.param == "synthetic":
        return synthetic_speech
    request.getfixturevalue("speech_data")  # skips where there is none
    folder = Path(os.environ.get("SPEECH_DATA", ROOT.parent / "shared" / "speech")) / "librispeech_mini"
    files = sorted(file for file in (folder / "wav").rglob("*") if file.is_file())

    def read(n_samples: int, number: int) -> torch.Tensor:
        chunks, length = [], 0
        while length < n_samples:
            chunks.append(
                read_utterance({"ID": "", "wav": str(files[(number + len(chunks)) % len(files)])}, 16000)
            )
            length += len(chunks[-1])
        return torch.cat(chunks)[:n_samples]

    return read
