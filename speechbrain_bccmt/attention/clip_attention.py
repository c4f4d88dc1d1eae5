"""Attention of a trained model over a recording: attention maps, token weights, and plots of both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure

from speechbrain_bccmt.attention.plots import draw_attention_maps, draw_token_attention, strips_height
from speechbrain_bccmt.features import band_frequencies
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.inference.results import EmbeddedUtterance

if TYPE_CHECKING:
    from speechbrain_bccmt.inference.verification import SpeakerVerification

# Maps grow with the square of the length, so a plot covers at most this many seconds.
PLOTTED_SECONDS = 10.0
# More clips side by side are too small to read.
MAX_CLIPS = 8


@dataclass(frozen=True)
class ClipAttention:
    """Attention of a model over one recording.

    Attributes
    ----------
    path : str
        The recording.
    seconds : float
        Length analysed: the recording's speech, or the whole recording, or the first `PLOTTED_SECONDS` of that.
    features : torch.Tensor
        (frames, mels), log-mel features from the model's front end.
    frequencies : numpy.ndarray
        (mels,), centre of each band in Hz.
    maps : list of torch.Tensor
        One for each requested block, (1, heads, query positions, key positions).
    blocks : tuple of int
        Their numbers, from 1.
    token_weights : dict of str to list of torch.Tensor
        Weights of each token in each of these blocks, (1, heads, frames of the sequence); empty without tokens.
    time_stride : int
        Feature frames per frame of the sequence that a token attends to.
    tokens : int
        Number of tokens before the frames.
    warnings : tuple of str
        About silence, clipping and omitted parts; each begins with the path.
    """

    path: str
    seconds: float
    features: torch.Tensor
    frequencies: np.ndarray
    maps: list[torch.Tensor]
    blocks: tuple[int, ...]
    token_weights: dict[str, list[torch.Tensor]]
    time_stride: int
    tokens: int
    warnings: tuple[str, ...] = ()

    def draw(self, title: str = "", figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
        """Plot the tokens' weights below the spectrogram, or the attention maps of an encoder without tokens.

        Draws into `figure`, which has the layout "constrained", or into a new one, and returns it.
        """
        shared = {"frequencies": self.frequencies, "figure": figure}
        if not self.token_weights:
            rows = [f"block {number}" for number in self.blocks]
            return draw_attention_maps(
                {title: self.maps}, self.seconds, rows, features=self.features, **shared
            )
        groups = {
            f"{token} token" + f", block {number}" * (len(self.blocks) > 1): weights[index]
            for index, number in enumerate(self.blocks)
            for token, weights in self.token_weights.items()
        }
        return draw_token_attention(
            self.features, groups, self.seconds, self.time_stride, self.tokens, title=title, **shared
        )

    def describe(self) -> list[dict]:
        """Return the weights of the tokens as plain values.

        Returns
        -------
        list of dict
            For each block and token: `block`, `token`, `weights` (heads, frames of the sequence), `on_tokens` (heads),
            the weight on the tokens themselves, and `frame_seconds`, the distance between two frames of the sequence.
        """
        step = self.time_stride * self.seconds / len(self.features)
        return [
            {
                "block": number,
                "token": token,
                "frame_seconds": round(step, 6),
                "weights": [[float(f"{value:.5g}") for value in head] for head in weights[index][0].tolist()],
                "on_tokens": [round(1 - share, 5) for share in weights[index][0].sum(-1).tolist()],
            }
            for index, number in enumerate(self.blocks)
            for token, weights in self.token_weights.items()
        ]


def has_attention(model: SpeakerVerification) -> bool:
    """Return whether `attend_to_clip` works with a model."""
    return hasattr(model.mods.embedding_model, "forward_with_attention")


@torch.no_grad()
def attend_to_clip(
    model: SpeakerVerification,
    path: str | os.PathLike,
    blocks: Sequence[int] | None = None,
    tokens: Sequence[str] | None = None,
) -> ClipAttention:
    """Compute the attention of a model over the speech of a recording, or over the first `PLOTTED_SECONDS` of it.

    A model loaded with `vad=False` attends to the whole recording.

    Parameters
    ----------
    model : SpeakerVerification
        The trained model.
    path : str or Path
        The recording.
    blocks : sequence of int or None
        Numbers of the attention blocks, from 1; with a TokenEmbedder, of the blocks that its tokens pass through. None:
        the last.
    tokens : sequence of str or None
        "class", "distillation"; None: all of the model's tokens.

    Returns
    -------
    ClipAttention
        The values; `draw` plots them.

    Raises
    ------
    OSError, ValueError
        If the recording cannot be read or is too short, or the model has no such block or token, or no attention.
    """
    encoder = model.mods.embedding_model
    source, kind = model.source or "the model", type(encoder).__name__
    if not has_attention(model):
        raise ValueError(f"{source}: its {kind} has no attention maps")
    known = getattr(encoder, "token_names", ())  # none if the readout is the mean of the frames
    if tokens and not known:
        raise ValueError(f"{source}: its {kind} has no tokens: its attention maps are plotted")
    for token in tokens or ():
        if token not in known:
            raise ValueError(f"{source}: it has no {token} token, but {', '.join(known)}")

    recording = model.open_recording(path)
    if model.vad:
        chunk = next(model.read_chunks(recording, vad=True))
    else:
        chunk = recording.beginning(model.sample_rate, PLOTTED_SECONDS)
    warnings = EmbeddedUtterance.from_chunks(path, np.empty(0), [chunk], model.vad).warnings
    wav = chunk.wav[: round(PLOTTED_SECONDS * model.sample_rate)]
    if len(wav) < len(chunk.wav) or chunk.seconds < recording.seconds:
        what = "s of speech" if model.vad and chunk.audible_seconds else "s"
        warnings += (
            f"{path}: {recording.seconds:.4g} s long, its first {PLOTTED_SECONDS:g} {what} are plotted",
        )
    seconds, wav = len(wav) / model.sample_rate, torch.from_numpy(wav).to(model.device)[None]
    features = model.mods.compute_features(wav)
    normalised = model.mods.mean_var_norm(features, torch.ones(1, device=wav.device))
    maps = encoder.forward_with_attention(normalised)[1]
    if known:
        maps = maps[-encoder.depths[-1] :]  # the earlier ones belong to a front end without tokens
    blocks = tuple(blocks or (len(maps),))
    for number in blocks:
        if not 1 <= number <= len(maps):
            raise ValueError(f"{source}: there is no block {number}, its {kind} has {len(maps)}")
    chosen = [maps[number - 1].cpu() for number in blocks]
    names = tuple(tokens or known)
    return ClipAttention(
        path=str(path),
        seconds=seconds,
        features=features[0].cpu(),
        frequencies=band_frequencies(model.mods.compute_features),
        maps=chosen,
        blocks=blocks,
        token_weights={name: [encoder.token_attention([map_], name) for map_ in chosen] for name in names},
        time_stride=encoder.time_stride if known else 1,
        tokens=len(known),
        warnings=warnings,
    )


def plot_clips(
    clips: Sequence[ClipAttention], path: str | os.PathLike, titles: Sequence[str] | None = None
) -> None:
    """Plot the attention over several recordings side by side, and save the plot.

    Parameters
    ----------
    clips : sequence of ClipAttention
        At most `MAX_CLIPS`.
    path : str or Path
        The plot to write: .png, .svg or .pdf.
    titles : sequence of str or None
        Titles of the clips; None: their paths, without the folders they share.

    Raises
    ------
    ValueError
        If there are no clips or too many, or the suffix of the path is unknown.
    """
    if not 1 <= len(clips) <= MAX_CLIPS:
        raise ValueError(f"a plot holds 1 to {MAX_CLIPS} recordings, got {len(clips)}")
    rows = max(len(clip.blocks) for clip in clips)
    strips = max(len(weights[0][0]) for clip in clips for weights in clip.token_weights.values() or [[[[]]]])
    if strips:
        groups = max(len(clip.token_weights) * len(clip.blocks) for clip in clips)
        size = 0.8 + 5.2 * len(clips), strips_height(strips * groups)
    else:
        size = 0.8 + 4.2 * len(clips), 2.2 + 2.9 * rows
    figure = Figure(figsize=size, layout="constrained")
    parts = np.atleast_1d(figure.subfigures(1, len(clips)))
    for part, clip, title in zip(parts, clips, titles or short_names([c.path for c in clips]), strict=True):
        clip.draw(title, part)
    save_figure(figure, path)


def short_names(paths: Sequence[str]) -> list[str]:
    """Name files by their paths without the folders they share.

    Examples
    --------
    >>> short_names(["wav/ada/one.wav", "wav/bela/one.wav"]), short_names(["wav/ada/one.wav"])
    (['ada/one.wav', 'bela/one.wav'], ['one.wav'])
    """
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [Path(os.path.relpath(path, shared)).as_posix() for path in paths]
