"""ONNX graphs of a trained model: features to embedding, and waveform to embedding.

Both take any batch size and any length. Both include the mean normalisation, the second also the front end. They
compute the same as the model, with fewer operators (see `export.fbank` and `export.folding`), and process recordings
above 30 s in chunks, as the interface does (see `export.chunks`).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from speechbrain_bccmt.audio.recording import MAX_CHUNK_SECONDS
from speechbrain_bccmt.export.chunks import cut, join
from speechbrain_bccmt.export.fbank import exportable_front_end
from speechbrain_bccmt.export.folding import fold_blocks
from speechbrain_bccmt.export.sherpa import sherpa_metadata
from speechbrain_bccmt.features import frame_count
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.inference.architecture import NEEDED
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.model_folder import SpeakerModel
from speechbrain_bccmt.inference.verifier import MIN_SECONDS

OPSET = 17


class FeaturesToEmbedding(nn.Module):
    """The graph from features to embedding: mean normalisation and encoder.

    Parameters
    ----------
    model : SpeakerModel
        The trained model.
    """

    def __init__(self, model: SpeakerModel):
        super().__init__()
        self.mean_var_norm = model.mean_var_norm
        self.embedding_model = fold_blocks(model.embedding_model)
        self.longest = frame_count(model.compute_features, longest_chunk(model))

    def forward(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embed (batch, frames, mels), with `valid` (batch,) valid frames, as (batch, embedding size)."""
        chunks, valid, weights = cut(features, self.longest, valid)
        return join(self.embed(chunks, valid), weights)

    def embed(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embed as `forward`, but whole utterances at once."""
        # A quarter of a frame less, so that rounding gives these frames: see features.relative_lengths.
        lengths = None if valid is None else (valid.float() - 0.25) / features.shape[1]
        return self.embedding_model(self._normalise(features, lengths), lengths).squeeze(1)

    def attend(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embed a whole utterance at once; also return the last attention map, or only its token rows."""
        embedding, maps = self.embedding_model.forward_with_attention(self._normalise(features, None))
        tokens = len(getattr(self.embedding_model, "token_names", ()))
        return embedding.squeeze(1), maps[-1][:, :, :tokens] if tokens else maps[-1]

    def _normalise(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        norm = self.mean_var_norm
        if lengths is not None or norm.norm_type != "sentence" or norm.std_norm:
            return norm(features, lengths)
        # The same without the masks, and along the last axis, where runtimes compute a mean fastest.
        features = features.transpose(1, 2)
        return (features - features.mean(2, keepdim=True)).transpose(1, 2)


class SherpaFeaturesToEmbedding(FeaturesToEmbedding):
    """The graph for sherpa-onnx, whose features have an extra frame at the end; see `export.sherpa`.

    Parameters
    ----------
    model : SpeakerModel
        The trained model.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Embed (batch, frames, mels), without the last frame, as (batch, embedding size)."""
        frames = torch._shape_as_tensor(features)[1]
        return super().forward(features[:, : torch.clamp(frames - 1, min=1)])


class WaveformToEmbedding(nn.Module):
    """The graph from waveform to embedding.

    Parameters
    ----------
    model : SpeakerModel
        The trained model; its front end is a `KaldiFbank` or SpeechBrain's `Fbank`.

    Raises
    ------
    TypeError
        If its front end is of another kind.
    """

    def __init__(self, model: SpeakerModel):
        super().__init__()
        self.front_end = exportable_front_end(model.compute_features)
        self.count_frames = lambda n_samples: frame_count(model.compute_features, n_samples)
        self.longest = longest_chunk(model)
        self.encoder = FeaturesToEmbedding(model)

    def forward(self, waveform: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embed (batch, samples), with `valid` (batch,) valid samples, as (batch, embedding size)."""
        chunks, valid, weights = cut(waveform, self.longest, valid)
        frames = None if valid is None else self.count_frames(valid)
        return join(self.encoder.embed(self.front_end(chunks), frames), weights)


class WaveformToAttention(WaveformToEmbedding):
    """The graph from waveform to embedding, with additional outputs for a plot of its attention.

    Parameters
    ----------
    model : SpeakerModel
        The trained model; its encoder has `forward_with_attention`.
    """

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed (batch, samples); add features (chunks, frames, mels) and attention (chunks, heads, rows, columns)."""
        chunks, _, weights = cut(waveform, self.longest)
        features = self.front_end(chunks)
        embeddings, attention = self.encoder.attend(features)
        return join(embeddings, weights), features, attention


def longest_chunk(model: SpeakerModel) -> int:
    """Return the length in samples of the longest stretch that a model embeds at once."""
    return int(MAX_CHUNK_SECONDS * model.sample_rate)


MODULES = {
    "features": FeaturesToEmbedding,
    "waveform": WaveformToEmbedding,
    "sherpa": SherpaFeaturesToEmbedding,
    "attention": WaveformToAttention,
}
GRAPHS = tuple(MODULES)


def export_onnx(
    model: SpeakerModel,
    path: str | Path,
    graph: str = "features",
    with_lengths: bool = False,
    metadata: dict | None = None,
) -> Path:
    """Write a trained model as one ONNX graph.

    Parameters
    ----------
    model : SpeakerModel
        The trained model.
    path : str or Path
        The file; replaced if it exists.
    graph : str
        "features": input `features` (batch, frames, mels), float32, as the front end computes them, with or without
        their mean. "waveform": input `waveform` (batch, samples), float32 in [-1, 1] at the model's sample rate.
        "sherpa": features as sherpa-onnx computes them, with the metadata that it reads. The output is `embedding`
        (batch, embedding size). "attention": as "waveform", with two more outputs: `features` (chunks, frames, mels),
        as the front end computes them, and `attention` (chunks, heads, query frames, key frames) of the last block;
        for a TokenEmbedder, with the tokens instead of the query frames, and before the key frames.
    with_lengths : bool
        Add a second input `lengths` (batch,), int64, the frames or samples of each utterance of a padded batch.
        Without it the graph is a little faster, and all utterances of a batch have the same length.
    metadata : dict, optional
        Entries in addition to the model's own.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        If `graph` is unknown, or sherpa-onnx cannot run the model.
    TypeError
        If the front end has no exportable form.
    ImportError
        If the package onnx is not installed.
    """
    onnx = import_onnx()
    if graph not in GRAPHS:
        raise ValueError(f"graph is '{graph}', expected one of {', '.join(GRAPHS)}")
    path = Path(path)
    for_sherpa = sherpa_metadata(model) if graph == "sherpa" else {}
    metadata = {**describe(model, graph), **for_sherpa, **(metadata or {})}
    module = MODULES[graph](model).eval()
    example = torch.randn(2, 2 * model.sample_rate, generator=torch.Generator().manual_seed(0))
    name, unit = "waveform", "samples"
    if graph in ("features", "sherpa"):
        example, name, unit = model.compute_features(example), "features", "frames"
    inputs, axes = (example,), {name: {0: "batch", 1: unit}, "embedding": {0: "batch"}}
    outputs = ["embedding"]
    if graph == "attention":
        outputs += ["features", "attention"]
        axes |= {"features": {0: "chunks", 1: "frames"}, "attention": {0: "chunks", 2: "queries", 3: "keys"}}
    if with_lengths:
        if graph not in ("features", "waveform"):
            raise ValueError(f"the graph '{graph}' takes no lengths: export it without them")
        inputs = (example, torch.tensor([example.shape[1], example.shape[1] // 2]))
        axes["lengths"] = {0: "batch"}
    names = [name, "lengths"] if with_lengths else [name]
    with temporary_sibling(path) as temporary:
        with torch.no_grad(), warnings.catch_warnings():
            # Tracing warns about shape checks that become constants; the exporter warns about its successor.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                inputs,
                temporary,
                input_names=names,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        written = onnx.load(temporary)
        onnx.helper.set_model_props(written, {key: str(value) for key, value in metadata.items()})
        onnx.checker.check_model(written)
        onnx.save(written, temporary)
        temporary.replace(path)
    return path


def describe(model: SpeakerModel, graph: str) -> dict:
    """Return the metadata that a client of the graph needs.

    Parameters
    ----------
    model : SpeakerModel
        The trained model.
    graph : str
        One of `GRAPHS`.

    Returns
    -------
    dict
        Entries of the file's metadata.
    """
    return {
        "producer": "speechbrain_bccmt",
        "graph": graph,
        "fingerprint": fingerprint(model.modules),
        "sample_rate": model.sample_rate,
        "min_seconds": model.architecture.get("min_seconds", MIN_SECONDS),
        "output_dim": model.embedding_size,
        "modules": json.dumps({name: model.architecture.get(name) for name in NEEDED}),
    }


def import_onnx():
    """Import onnx, or raise an error that says how to install it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX export needs the package onnx: pip install 'speechbrain_bccmt[onnx]'"
        ) from error
    return onnx
