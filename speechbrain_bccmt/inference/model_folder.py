"""Loading a trained model, completely and safely: shipped, from a folder, or from the hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import nn

from speechbrain_bccmt.features import sample_rate
from speechbrain_bccmt.inference.architecture import NEEDED, OPTIONAL, build, read_architecture
from speechbrain_bccmt.inference.foreign import onnx_modules
from speechbrain_bccmt.inference.model_files import (
    CALIBRATION_FILE,
    CONFIG_FILE,
    HPARAMS_FILE,
    PHRASE_FILE,
    find_file,
)
from speechbrain_bccmt.inference.parameters import load_parameters, read_labels
from speechbrain_bccmt.models import DEFAULT
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion, load_calibration


@dataclass(frozen=True)
class SpeakerModel:
    """A trained model, ready to run: its modules are in evaluation mode, without gradients.

    Attributes
    ----------
    compute_features, mean_var_norm, embedding_model : torch.nn.Module
        Waveform (batch, samples) to features (batch, frames, mels), to normalised features, to embedding
        (batch, 1, size).
    others : dict of str to torch.nn.Module
        A classifier and a normalisation of embeddings, if the model has them.
    label_encoder : CategoricalEncoder or None
        The classifier's classes.
    calibration : Calibration, QualityFusion or None
        Turns scores into probabilities, and has the threshold.
    phrase_fusion : PhraseFusion or None
        Decides about speaker and phrase, if the embedding holds both.
    architecture : dict
        The modules' description as plain data; see `inference.architecture`.
    source : str
        Where it came from.
    """

    compute_features: nn.Module
    mean_var_norm: nn.Module
    embedding_model: nn.Module
    others: dict = field(default_factory=dict)
    label_encoder: CategoricalEncoder | None = None
    calibration: Calibration | QualityFusion | None = None
    phrase_fusion: PhraseFusion | None = None
    architecture: dict = field(default_factory=dict)
    source: str = ""

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The three modules from waveform to embedding."""
        return {name: getattr(self, name) for name in NEEDED}

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz that the model expects."""
        return sample_rate(self.compute_features)

    @property
    def embedding_size(self) -> int:
        """Size of the embedding."""
        n_samples = self.sample_rate
        with torch.no_grad():
            features = self.mean_var_norm(self.compute_features(torch.zeros(1, n_samples)), torch.ones(1))
            return self.embedding_model(features).shape[-1]


def load_speaker_model(
    source: str | Path = DEFAULT,
    trust_code: bool | None = None,
    hparams_file: str = HPARAMS_FILE,
    overrides: dict | str | None = None,
) -> SpeakerModel:
    """Load a trained model.

    Parameters
    ----------
    source : str or Path
        Name of a shipped model, a published folder (config.json and safetensors), the output folder of a training
        (hyperparams.yaml and save/), a folder of SpeechBrain (hyperparams.yaml and .ckpt files), a HuggingFace hub id
        (owner/model), or an ONNX file of WeSpeaker, 3D-Speaker or sherpa-onnx.
    trust_code : bool or None
        True builds classes of any package, such as a user's own network; None: as the environment variable
        BCCMT_TRUST_CODE says.
    hparams_file : str
        Name of the YAML, for folders without a config.json of this package.
    overrides : dict or str, optional
        Values to replace in that YAML; if given, it is read instead of config.json.

    Returns
    -------
    SpeakerModel
        On the CPU.

    Raises
    ------
    OSError
        If there is no model, or one of its files cannot be read.
    ValueError
        If a file is damaged, does not fit the others, or names a class that is not trusted.
    """
    if str(source).endswith(".onnx"):
        modules = {name: module.eval() for name, module in onnx_modules(source).items()}
        return SpeakerModel(**modules, source=str(source))
    config = None if overrides else find_file(source, CONFIG_FILE, needed=False)
    if config is None or '"modules"' not in config.read_text(encoding="utf-8", errors="replace"):
        config = find_file(source, hparams_file)
    architecture = read_architecture(config, overrides)
    parts = {
        name: architecture[name]
        for name in (*NEEDED, *OPTIONAL)
        if name in architecture and not architecture[name].get("partial")
    }
    modules = {name: build(part, str(config), trust_code) for name, part in parts.items()}
    strangers = [name for name, module in modules.items() if not isinstance(module, nn.Module)]
    if strangers:
        raise ValueError(f"{config} describes no network as {', '.join(strangers)}")
    load_parameters({name: module for name, module in modules.items() if _has_state(name, module)}, source)
    for module in modules.values():
        module.eval().requires_grad_(False)
    calibration_file = find_file(source, CALIBRATION_FILE, needed=False)
    phrase_file = find_file(source, PHRASE_FILE, needed=False)
    return SpeakerModel(
        **{name: modules.pop(name) for name in NEEDED},
        others=modules,
        label_encoder=read_labels(source, needed="classifier" in modules),
        calibration=None if calibration_file is None else load_calibration(calibration_file),
        phrase_fusion=None if phrase_file is None else PhraseFusion.load(phrase_file),
        architecture=architecture,
        source=str(source),
    )


def _has_state(name: str, module: nn.Module) -> bool:
    """Return whether a checkpoint holds the module: not a front end, nor a normalisation by utterance."""
    if getattr(module, "stored_elsewhere", False):
        return False
    norm_type = getattr(module, "norm_type", None)
    return name in ("embedding_model", "classifier") or norm_type == "global"
