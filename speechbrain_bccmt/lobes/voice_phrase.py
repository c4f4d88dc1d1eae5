"""VoicePhraseEmbedder: speaker and phrase in two parts of one embedding.

The two parts, their sizes and their weights are ours; the class token is that of Mingote et al. (arXiv 2111.03842).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from speechbrain_bccmt.lobes.bccmt import BCCMT, bccmt_tiny
from speechbrain_bccmt.lobes.token_embedder import TokenEmbedder


class VoicePhraseEmbedder(TokenEmbedder):
    """BC-CMT that embeds the speaker, with a class token on its last feature map that embeds the phrase.

    Each part is normalised to its own length, so the cosine of two embeddings is the mean of the voices' and the
    phrases' cosine, the latter weighted by `phrase_weight`: one embedding scores both, and can be split.

    Parameters
    ----------
    front_end : BCCMT, dict or None
        The encoder with its pooling and embedding layer, or the options to build it from; None: BC-CMT Tiny.
    embedding_size : int
        Size of the phrase part. The voice part has the size of the encoder's embedding.
    phrase_weight : float
        Weight of the phrase's cosine relative to the voice's.
    positions, channels, blocks, **options
        See `TokenEmbedder`. Positions are on, as a phrase is a sequence of sounds.

    Raises
    ------
    ValueError
        As in `TokenEmbedder`, or if `phrase_weight` is not above zero.

    Examples
    --------
    >>> model = VoicePhraseEmbedder().eval()
    >>> x = torch.rand(2, 100, 80)
    >>> model(x).shape
    torch.Size([2, 1, 256])
    >>> voice = model(x)[..., : model.voice_size]
    >>> torch.allclose(F.normalize(voice, dim=-1), F.normalize(model.encoder(x), dim=-1), atol=1e-6)
    True
    """

    frozen = False

    def __init__(
        self,
        front_end: BCCMT | dict | None = None,
        embedding_size: int = 64,
        phrase_weight: float = 0.75,
        positions: str = "sinusoidal",
        channels: int = 80,
        blocks: int = 1,
        **options,
    ):
        if not phrase_weight > 0:
            raise ValueError(f"phrase_weight={phrase_weight} must be above 0")
        super().__init__(
            front_end=bccmt_tiny() if front_end is None else front_end,
            embedding_size=embedding_size,
            positions=positions,
            channels=channels,
            blocks=blocks,
            **options,
        )
        self.config["phrase_weight"] = self.phrase_weight = phrase_weight

    @property
    def encoder(self) -> BCCMT:
        """The speaker encoder."""
        return self.sequence.front_end

    @property
    def embedding_size(self) -> int:
        """Size of the embedding that `forward` returns."""
        return self.encoder.embedding_size + self.token_size

    def freeze_encoder(self) -> None:
        """Freeze the encoder from now on: not trained, in evaluation mode."""
        self.frozen = True
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        """Change the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward_parts(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embed speaker and phrase separately, for training.

        Parameters
        ----------
        x, lengths : Tensor
            As in `forward`.

        Returns
        -------
        tuple
            (batch, 1, size of the encoder's embedding) and (batch, 1, token size), not normalised.
        """
        return self._encode(x, lengths, None, with_map=False)[:2]

    @property
    def voice_size(self) -> int:
        """Number of values of the voice part, which comes first; the rest is the phrase part."""
        return self.encoder.embedding_size

    def _take(self, encoder: BCCMT) -> BCCMT:
        return encoder

    def _encode(self, x: Tensor, lengths: Tensor | None, phonetic: Tensor | None, with_map: bool):
        self.sequence.check(x, phonetic)
        x, valid, maps = self.encoder.feature_map(x, lengths, with_map)
        voice = self.encoder.embed_map(x, valid)
        phrase, _, maps = self.read_sequence(*self.sequence.from_map(x, valid), maps, with_map)
        return voice, phrase, maps

    def _choose(self, voice: Tensor, phrase: Tensor) -> Tensor:
        weights = 1.0, self.phrase_weight
        parts = [
            F.normalize(part, dim=-1) * math.sqrt(weight / sum(weights))
            for part, weight in zip((voice, phrase), weights, strict=True)
        ]
        return torch.cat(parts, dim=-1)
