"""Attention of a trained model in a recording: the weights of its tokens, or its attention maps, and plots of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure

from speechbrain_bccmt.attention.plots import draw_attention_maps, draw_token_attention, picture_inches
from speechbrain_bccmt.audio.recording import Recording
from speechbrain_bccmt.features import band_frequencies
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.inference.results import EmbeddedUtterance

if TYPE_CHECKING:
    from speechbrain_bccmt.inference.verification import SpeakerVerification

# Maps of long recordings would be as long squared; what a person can see in a picture is less than this.
DRAWN_SECONDS = 10.0
# Side by side, more than these are too small to be read.
MAX_CLIPS = 8


@dataclass(frozen=True)
class ClipAttention:
    """What a model attends to in one recording.

    Attributes
    ----------
    path : str
        The recording.
    seconds : float
        What was looked at of it: all, or the first `DRAWN_SECONDS`.
    features : torch.Tensor
        (frames, mels), log-mel, as the front end gives them.
    frequencies : numpy.ndarray
        (mels,), centre of each band in Hz.
    maps : list of torch.Tensor
        One for each block that was asked for, (1, heads, query positions, key positions).
    blocks : tuple of int
        Their numbers, from 1.
    token_weights : dict of str to list of torch.Tensor
        Token to its weights in each of these blocks, (1, heads, frames of the sequence); empty without tokens.
    time_stride : int
        Frames of the features for one of the sequence that a token attends to.
    tokens : int
        How many tokens stand before the frames.
    warnings : tuple of str
        Of silence, clipping and what was left out; each begins with the path.
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
        """Plot it: strips of the tokens below the spectrogram, or the attention maps of an encoder without tokens.

        Parameters
        ----------
        title : str
            Title of the picture.
        figure : matplotlib.figure.Figure, SubFigure or None
            What to draw into; None: a new figure.

        Returns
        -------
        matplotlib.figure.Figure or SubFigure
            The picture.
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
        """Return the numbers behind the strips, as plain values.

        Returns
        -------
        list of dict
            For each block and token `block`, `token`, `weights` (heads, frames of the sequence), `on_tokens` (heads),
            what is left to the tokens, and `frame_seconds`, the distance of two frames of the sequence.
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


@torch.no_grad()
def attend_to_clip(
    model: SpeakerVerification,
    path: str | os.PathLike,
    blocks: Sequence[int] | None = None,
    tokens: Sequence[str] | None = None,
) -> ClipAttention:
    """Compute the attention of a model in a recording; of a long one, in its first `DRAWN_SECONDS`.

    Parameters
    ----------
    model : SpeakerVerification
        The trained model.
    path : str or Path
        The recording.
    blocks : sequence of int or None
        Numbers of the attention blocks, from 1: of the blocks that the tokens go through, or of an encoder without
        tokens. None: the last, from which a token is read out.
    tokens : sequence of str or None
        "class", "distillation"; None: all that there are.

    Returns
    -------
    ClipAttention
        Its numbers; `draw` makes the picture.

    Raises
    ------
    OSError, ValueError
        If the recording cannot be read or is too short, or the model has no such block or token, or no attention.
    """
    encoder = model.mods.embedding_model
    kind = type(encoder).__name__
    if not hasattr(encoder, "forward_with_attention"):
        raise ValueError(f"{model.source or 'the model'}: its {kind} gives no attention maps")
    known = getattr(encoder, "token_names", ())  # none where the readout is the mean of the frames
    if tokens and not known:
        raise ValueError(
            f"{model.source or 'the model'}: its {kind} has no tokens: its attention maps are plotted"
        )
    # Unlike the list of their class, a model's own: a class token alone has no distillation token beside it.
    for token in tokens or ():
        if token not in known:
            raise ValueError(
                f"{model.source or 'the model'}: it has no {token} token, but {', '.join(known)}"
            )

    recording = Recording.open(path)
    if recording.seconds < model.min_seconds:
        raise ValueError(
            f"{path}: {recording.seconds:.4g} s is too short, this model takes {model.min_seconds:g} s or more"
        )
    chunk = recording.beginning(model.sample_rate, DRAWN_SECONDS)
    warnings = EmbeddedUtterance.from_chunks(path, np.empty(0), [chunk]).warnings
    if chunk.seconds < recording.seconds:
        warnings += (f"{path}: {recording.seconds:.4g} s long, its first {DRAWN_SECONDS:g} s are drawn",)
    wav = chunk.wav.to(model.device)[None]
    features = model.mods.compute_features(wav)
    normalised = model.mods.mean_var_norm(features, torch.ones(1, device=wav.device))
    maps = encoder.forward_with_attention(normalised)[1]
    if known:
        maps = maps[-encoder.depths[-1] :]  # those before are of a front end, and know no tokens
    blocks = tuple(blocks or (len(maps),))
    for number in blocks:
        if not 1 <= number <= len(maps):
            raise ValueError(
                f"{model.source or 'the model'}: there is no block {number}, its {kind} has {len(maps)}"
            )
    chosen = [maps[number - 1].cpu() for number in blocks]
    names = tuple(tokens or known)
    return ClipAttention(
        path=str(path),
        seconds=chunk.seconds,
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
    """Plot what a model attends to in recordings, side by side, into a file.

    Parameters
    ----------
    clips : sequence of ClipAttention
        At most `MAX_CLIPS`.
    path : str or Path
        The picture to write: .png, .svg or .pdf.
    titles : sequence of str or None
        Of the clips; None: their paths, without the folders that they share.

    Raises
    ------
    ValueError
        If there are none or too many clips, or the ending of the picture is unknown.
    """
    if not 1 <= len(clips) <= MAX_CLIPS:
        raise ValueError(f"a picture holds 1 to {MAX_CLIPS} clips, got {len(clips)}")
    rows = max(len(clip.blocks) for clip in clips)
    strips = max(len(weights[0][0]) for clip in clips for weights in clip.token_weights.values() or [[[[]]]])
    if strips:
        groups = max(len(clip.token_weights) * len(clip.blocks) for clip in clips)
        size = 0.8 + 5.2 * len(clips), picture_inches(strips * groups)
    else:
        size = 0.8 + 4.2 * len(clips), 2.2 + 2.9 * rows
    figure = Figure(figsize=size, layout="constrained")
    parts = np.atleast_1d(figure.subfigures(1, len(clips)))
    for part, clip, title in zip(parts, clips, titles or short_names([c.path for c in clips]), strict=True):
        clip.draw(title, part)
    save_figure(figure, path)


def short_names(paths: Sequence[str]) -> list[str]:
    """Name files by their paths without the folders that they share.

    Examples
    --------
    >>> short_names(["wav/ada/one.wav", "wav/bela/one.wav"]), short_names(["wav/ada/one.wav"])
    (['ada/one.wav', 'bela/one.wav'], ['one.wav'])
    """
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [Path(os.path.relpath(path, shared)).as_posix() for path in paths]
