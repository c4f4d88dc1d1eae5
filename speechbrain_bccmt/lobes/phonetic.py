"""Phonetic positions: a frozen network tells a TokenEmbedder, frame by frame, what is being said.

Source: the system of Mingote et al. for SdSV 2020 concatenates a phonetic bottleneck before its residual blocks as
positional information. Which network gives it is left to the user; that it hears the encoder's own features is our
reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import frame_mask, valid_frames
from speechbrain_bccmt.lobes.token_embedder import TokenEmbedder


class PhoneticTokenEmbedder(nn.Module):
    """A TokenEmbedder with the network that computes its phonetic input, in the form of every encoder.

    The phonetic network is frozen and stays in evaluation mode. Its parameters are part of the state dict, so that a
    checkpoint needs nothing beside it.

    Parameters
    ----------
    embedder : TokenEmbedder
        With `positions="phonetic"`.
    phonetic_model : torch.nn.Module
        Maps log-mel features (batch, frames, mels) and relative lengths (batch,) or None to (batch, frames, phonetic
        size): the bottleneck or the posteriors of a phoneme classifier, such as the encoder of a speech recogniser.
        It hears the features of the embedder, so it has to be trained on the same, their mean removed alike.

    Attributes
    ----------
    config, embedding_size, token_size, token_names, time_stride, depths, readout
        The embedder's.

    Raises
    ------
    ValueError
        If the embedder takes no phonetic input.

    Notes
    -----
    Padding is zeroed before and after the phonetic network. That padding changes no embedding holds as far as it holds
    for the network: layers of frames by themselves, or one after a window of frames, need nothing; recurrent layers,
    attention, and several convolutions have to use the lengths.

    Examples
    --------
    >>> embedder = TokenEmbedder(positions="phonetic", phonetic_size=8)
    >>> class Bottleneck(nn.Linear):
    ...     def forward(self, x, lengths=None):
    ...         return super().forward(x)
    >>> model = PhoneticTokenEmbedder(embedder, Bottleneck(80, 8))
    >>> model(torch.rand(2, 100, 80), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 192])
    >>> any(parameter.requires_grad for parameter in model.train().phonetic_model.parameters())
    False
    """

    def __init__(self, embedder: TokenEmbedder, phonetic_model: nn.Module):
        super().__init__()
        if embedder.sequence.positions != "phonetic":
            raise ValueError(
                f"positions={embedder.sequence.positions!r} of the embedder take no phonetic input: use 'phonetic'"
            )
        self.embedder = embedder
        self.phonetic_model = phonetic_model.requires_grad_(False).eval()

    @property
    def config(self) -> dict:
        """The embedder's options; those of the phonetic network are in the YAML alone."""
        return self.embedder.config

    @property
    def embedding_size(self) -> int:
        """Size of what `forward` gives."""
        return self.embedder.embedding_size

    @property
    def token_size(self) -> int:
        """Size of one token's embedding."""
        return self.embedder.token_size

    @property
    def readout(self) -> str:
        """What becomes the embedding."""
        return self.embedder.readout

    @property
    def token_names(self) -> tuple[str, ...]:
        """Its tokens."""
        return self.embedder.token_names

    @property
    def time_stride(self) -> int:
        """Frames of the input for one frame of the sequence."""
        return self.embedder.time_stride

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of attention maps by stage."""
        return self.embedder.depths

    def train(self, mode: bool = True):
        """Change the mode of the embedder; the phonetic network stays in evaluation mode."""
        super().train(mode)
        self.phonetic_model.eval()
        return self

    @torch.no_grad()
    def phonetic(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the phonetic input.

        Parameters
        ----------
        x : Tensor
            (batch, frames, mels), log-mel features.
        lengths : Tensor or None
            (batch,), relative to the longest utterance, in (0, 1].

        Returns
        -------
        Tensor
            (batch, frames, phonetic size), without gradient, zero where padded.

        Raises
        ------
        ValueError
            If the network gives another shape.
        """
        keep = (
            None if lengths is None else frame_mask(valid_frames(lengths, x.shape[1]), x.shape[1])[..., None]
        )
        phonetic = self.phonetic_model(x if keep is None else x.masked_fill(~keep, 0), lengths)
        expected = (*x.shape[:2], self.embedder.sequence.phonetic_size)
        if not isinstance(phonetic, Tensor) or phonetic.shape != expected:
            given = tuple(phonetic.shape) if isinstance(phonetic, Tensor) else type(phonetic).__name__
            raise ValueError(
                f"the phonetic network {type(self.phonetic_model).__name__} gives {given} for {tuple(x.shape)}, where "
                f"the embedder takes (batch, frames, {expected[2]} = phonetic_size)"
            )
        return phonetic if keep is None else phonetic.masked_fill(~keep, 0)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed utterances, see `TokenEmbedder.forward`."""
        return self.embedder(x, lengths, self.phonetic(x, lengths))

    def forward_with_attention(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Embed utterances and show the attention maps, see `TokenEmbedder.forward_with_attention`."""
        return self.embedder.forward_with_attention(x, lengths, self.phonetic(x, lengths))

    def forward_tokens(
        self, x: Tensor, lengths: Tensor | None = None, with_map: bool = False
    ) -> tuple[Tensor, Tensor, list]:
        """Embed utterances by both tokens, see `TokenEmbedder.forward_tokens`."""
        return self.embedder.forward_tokens(x, lengths, self.phonetic(x, lengths), with_map)

    def token_attention(self, maps: Sequence[Tensor], token: str = "class", block: int = -1) -> Tensor:
        """Pick the weights that a token gives to the frames, see `TokenEmbedder.token_attention`."""
        return self.embedder.token_attention(maps, token, block)
