"""Third-party encoders, as teachers or for comparison: ONNX files, and PyTorch networks without support for padding.

An ONNX file of WeSpeaker, 3D-Speaker or sherpa-onnx says in its metadata which features it takes, as sherpa-onnx reads
them (https://github.com/k2-fsa/sherpa-onnx): `sample_rate`, `normalize_samples`, and `feature_normalize_type`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

from speechbrain_bccmt.features import build_front_end
from speechbrain_bccmt.inference.parameters import read_parameters
from speechbrain_bccmt.lobes.attention import valid_frames
from speechbrain_bccmt.sessions import load_session

# How 16-bit samples are scaled: by `normalize_samples` of the metadata.
SCALES = {"1": 1.0, "0": 32768.0}


class UnpaddedEncoder(nn.Module):
    """Any network on features (batch, frames, mels) as an encoder: each utterance is embedded without padding.

    Parameters
    ----------
    model : torch.nn.Module
        Returns embeddings (batch, size) or (batch, 1, size).
    checkpoint : str or Path, optional
        File of its parameters, a `state_dict` or with one inside; None: the parameters are in the model's folder.

    Attributes
    ----------
    stored_elsewhere : bool
        Whether the parameters are already loaded, and not in a file of the model's folder.

    Raises
    ------
    OSError, ValueError
        If the checkpoint cannot be read, or belongs to another network.

    Examples
    --------
    >>> class Mean(nn.Module):
    ...     def forward(self, features):
    ...         return features.mean(1)
    >>> features = torch.tensor([[[1.0], [3.0]], [[2.0], [9.0]]])
    >>> UnpaddedEncoder(Mean())(features, torch.tensor([1.0, 0.5])).flatten().tolist()
    [2.0, 2.0]
    """

    stored_elsewhere = False

    def __init__(self, model: nn.Module, checkpoint: str | Path | None = None):
        super().__init__()
        self.model = model
        if checkpoint is not None:
            state = read_parameters(checkpoint)
            try:
                model.load_state_dict(state.get("state_dict", state))
            except (RuntimeError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ValueError(f"{checkpoint} does not fit {type(model).__name__}: {reason}") from error
            self.stored_elsewhere = True

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed features (batch, frames, mels) with relative lengths (batch,): (batch, 1, size)."""
        if lengths is None:
            return self.embed(features).reshape(len(features), 1, -1)
        frames = valid_frames(lengths, features.shape[1]).tolist()
        # Utterances of equal length, such as training crops, go in one batch.
        if len(set(frames)) == 1:
            return self.embed(features[:, : frames[0]]).reshape(len(features), 1, -1)
        rows = [
            self.embed(row[None, :count]).reshape(1, -1) for row, count in zip(features, frames, strict=True)
        ]
        return torch.stack(rows)

    def embed(self, features: Tensor) -> Tensor:
        """Embed utterances of equal length."""
        return self.model(features)


class OnnxEncoder(UnpaddedEncoder):
    """A graph on features (batch, frames, mels) as an encoder, run by ONNX Runtime on the CPU.

    Parameters
    ----------
    path : str or Path
        The file; its graph has features as its one input.

    Attributes
    ----------
    metadata : dict of str to str
        The file's metadata.
    digest : str
        Digest of the file, which makes the fingerprints of two models differ.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If ONNX Runtime is not installed.
    ValueError
        If it is not an ONNX file, or takes anything other than features.
    """

    stored_elsewhere = True

    def __init__(self, path: str | Path):
        nn.Module.__init__(self)
        self._session = load_session(path, torch.get_num_threads())
        self.digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 3:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise ValueError(f"{path} takes {shapes}: expected features (batch, frames, mels) alone")
        self._input, self._output = inputs[0].name, self._session.get_outputs()[0].name
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        mels = inputs[0].shape[2]
        self.n_mels = mels if isinstance(mels, int) else 80

    def embed(self, features: Tensor) -> Tensor:
        """Embed utterances of equal length."""
        found = self._session.run([self._output], {self._input: features.float().cpu().numpy()})[0]
        return torch.from_numpy(found).to(features.device)


class _Unchanged(nn.Module):
    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return features


def onnx_modules(path: str | Path) -> dict[str, nn.Module]:
    """Build the three modules from waveform to embedding for an ONNX file with the metadata of sherpa-onnx.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict of str to torch.nn.Module
        `compute_features`, `mean_var_norm` and `embedding_model`.

    Raises
    ------
    OSError, ImportError, ValueError
        As for `OnnxEncoder`, and if the metadata do not say which features the graph takes.
    """
    encoder = OnnxEncoder(path)
    scale, rate = encoder.metadata.get("normalize_samples"), encoder.metadata.get("sample_rate", "")
    if scale not in SCALES or not rate.isdecimal():
        raise ValueError(
            f"{path}: its metadata lack normalize_samples or sample_rate, which say what features it takes. Files for "
            "sherpa-onnx have them; for others, write a hyperparams.yaml that names OnnxEncoder and a front end"
        )
    front_end = build_front_end("sherpa", int(rate), encoder.n_mels)
    front_end.scale = SCALES[scale]
    kind = encoder.metadata.get("feature_normalize_type", "")
    if kind not in ("", "global-mean"):  # sherpa-onnx's name for the mean of the utterance
        raise ValueError(f"{path}: feature_normalize_type is '{kind}', expected global-mean or none")
    norm = InputNormalization(norm_type="sentence", std_norm=False) if kind else _Unchanged()
    return {"compute_features": front_end, "mean_var_norm": norm, "embedding_model": encoder}
