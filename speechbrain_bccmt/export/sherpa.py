"""Requirements of sherpa-onnx for a speaker model: matching features, a graph that takes them, and metadata.

sherpa-onnx (https://github.com/k2-fsa/sherpa-onnx; measured on its version 2.0.1) computes Kaldi features itself: 80
filters from 20 Hz to 400 Hz below half the sample rate, and frames centred on every 10 ms, reflected at both ends. The
front end of such a model is therefore `build_front_end("sherpa")`, available in every training as --front_end=sherpa.
It computes the same frames except for one or two at the end. The graph for sherpa-onnx leaves the last one out.
"""

from __future__ import annotations

import torch

from speechbrain_bccmt.features import BELOW_NYQUIST, KaldiFbank
from speechbrain_bccmt.inference.model_folder import SpeakerModel

# Sample scaling: the scale of our front end to sherpa-onnx's `normalize_samples`.
NORMALIZE_SAMPLES = {1.0: 1, 32768.0: 0}


def sherpa_metadata(model: SpeakerModel, language: str = "unknown") -> dict[str, str | int]:
    """Return the metadata that sherpa-onnx needs to run a model's features graph.

    Parameters
    ----------
    model : SpeakerModel
        The trained model.
    language : str
        Language of the training data, which sherpa-onnx only displays.

    Returns
    -------
    dict
        Entries for the file's metadata.

    Raises
    ------
    ValueError
        If sherpa-onnx would compute different features from those the model was trained on.

    Notes
    -----
    `framework` names one of the families that sherpa-onnx knows; "wespeaker" stands for what this model shares with
    them: Kaldi features of shape (batch, frames, mels) in, one vector out. The mean is removed within the graph, so
    there is no `feature_normalize_type`.

    Examples
    --------
    >>> from speechbrain.processing.features import InputNormalization
    >>> from speechbrain_bccmt import bccmt_tiny
    >>> norm = InputNormalization(norm_type="sentence", std_norm=False)
    >>> metadata = sherpa_metadata(SpeakerModel(KaldiFbank(f_max=7600, centred=True), norm, bccmt_tiny().eval()))
    >>> metadata["output_dim"], metadata["normalize_samples"]
    (192, 1)
    """
    problems = _differences(model.compute_features)
    if problems:
        raise ValueError(
            f"sherpa-onnx cannot run the model '{model.source}', as it would compute other features: "
            f"{'; '.join(problems)}. Train with --front_end=sherpa, that is "
            f"KaldiFbank with f_max: {model.sample_rate // 2 - BELOW_NYQUIST}, centred: True"
        )
    return {
        "framework": "wespeaker",
        "language": language,
        "output_dim": model.embedding_size,
        "sample_rate": model.sample_rate,
        "normalize_samples": NORMALIZE_SAMPLES[model.compute_features.scale],
    }


def fits_sherpa(model: SpeakerModel) -> bool:
    """Return whether sherpa-onnx computes the features that a model was trained on."""
    return not _differences(model.compute_features)


def _differences(front_end: torch.nn.Module) -> list[str]:
    if not isinstance(front_end, KaldiFbank):
        return [f"the front end is {type(front_end).__name__}, not KaldiFbank"]
    if front_end.n_mels != 80:
        return [f"n_mels is {front_end.n_mels}, not 80"]
    rate = front_end.sample_rate
    theirs = KaldiFbank(sample_rate=rate, f_max=rate / 2 - BELOW_NYQUIST)
    problems = []
    if front_end.n_reflected != (front_end.window_size - front_end.hop_size) // 2:
        problems.append("frames begin with the first sample (centred is False)")
    if (front_end.window_size, front_end.hop_size) != (theirs.window_size, theirs.hop_size):
        problems.append("frames are not 25 ms every 10 ms")
    elif not torch.equal(front_end.window.cpu(), theirs.window):
        problems.append("the window is not povey")
    if front_end.filters.shape != theirs.filters.shape or not torch.equal(
        front_end.filters.cpu(), theirs.filters
    ):
        problems.append(f"the filters do not span 20 to {rate / 2 - BELOW_NYQUIST:g} Hz (f_min, f_max)")
    if front_end.preemphasis != theirs.preemphasis:
        problems.append(f"preemphasis is {front_end.preemphasis}, not {theirs.preemphasis}")
    if front_end.scale not in NORMALIZE_SAMPLES:
        problems.append(f"scale is {front_end.scale:g}, neither 1 nor 32768")
    return problems
