"""TokenEmbedder: self-attention with memory layers, whose class token is the embedding of the utterance.

Axes: b batch, n position (tokens, then frames), t frame, d channel, h head.

Sources: Mingote et al. (Digital Signal Processing 133, 2023; arXiv 2111.03842), of which we know the abstract, and the
same authors' system for SdSV 2020: convolutional front end, self-attention, memory, self-attention, memory, mean over
time; it concatenates a phonetic bottleneck before its residual blocks as positional information. The default sizes
(small, for words and commands on a CPU), the last norm, the embedding layers, the tokens on a BC-CMT encoder and the
phonetic network's input features are our reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import frame_mask, valid_frames
from speechbrain_bccmt.lobes.bccmt import BCCMT, bccmt_tiny
from speechbrain_bccmt.lobes.front_end import ConvolutionalFrontEnd, FrameSequence
from speechbrain_bccmt.lobes.memory import Memory
from speechbrain_bccmt.lobes.tokens import TokenBlock, Tokens

READOUTS = ("mean", "class", "class+distillation")
EMBEDDINGS = ("class", "distillation", "mean", "concatenation")


class TokenEmbedder(nn.Module):
    """Encoder from log-mel frames to one embedding per utterance, for text-dependent verification.

    Parameters
    ----------
    readout : str
        Source of the embedding: "mean" (of the frames), "class" (the class token), or "class+distillation" (one token
        that learns the label and one that learns a teacher's predictions).
    class_tokens : int
        R, trainable vectors that the class token is drawn from in training; the first is used at inference.
    embedding : str
        With two tokens, which of them is the embedding at inference: "class", "distillation", the "mean" of the two,
        or their "concatenation", of twice the size.
    positions : str
        Positional information: "none" (beyond what the convolutions see), "sinusoidal", or "phonetic" (a second
        input).
    phonetic_size : int
        Size of the phonetic input, such as the bottleneck of a phoneme classifier.
    phonetic_model : torch.nn.Module or None
        Network that computes the phonetic input; with it the embedder takes features alone, as every encoder does. It
        maps log-mel features (batch, frames, mels) and relative lengths (batch,) or None to (batch, frames, phonetic
        size), and has to be trained on the same features with the same mean removal. It is frozen, stays in evaluation
        mode, and its parameters are part of the state dict.
    channels, blocks, heads : int
        Width d, number and heads of the self-attention blocks.
    memory_keys, memory_top_k, memory_key_size, memory_heads : int
        Options of each block's memory layer, see `Memory`; none by default: in our comparisons it cost accuracy or made
        no difference (docs/text_dependent.md).
    product_keys : bool
        Product keys instead of flat ones.
    feed_forward : int
        Inner channels of a feed-forward part in each block; 0: none, as in the system of 2020, which has memory layers
        instead.
    embedding_size : int
        Size of the embedding, or of each token's embedding when both are concatenated.
    dropout : float
        Dropout on the blocks' residual branches in training.
    n_mels : int
        Log-mel bands of the input.
    front_channels, front_units, kernel_size, time_stride
        Options of the `ConvolutionalFrontEnd`: its `channels`, `units`, `kernel_size` and `time_stride`.
    front_end : BCCMT, dict or None
        Replaces the convolutional front end: a BC-CMT encoder, or the options to build it from; its last feature map
        is the sequence. Its pooling and embedding layer are removed, and `n_mels` is taken from it.

    Attributes
    ----------
    config : dict
        Its arguments as plain values: `TokenEmbedder(**model.config)` rebuilds it.
    token_size : int
        Size of one token's embedding, the input of a classifier in training.

    Raises
    ------
    ValueError
        For an unknown option, or numbers that do not fit together.

    Notes
    -----
    A single frame is enough. The embedding of an utterance does not depend on padding; with a phonetic network, only if
    the network's output does not either: frame-wise layers, after at most one layer on a window of frames, need no
    care; recurrent layers, attention, and several convolutions have to use the lengths.

    Examples
    --------
    >>> model = TokenEmbedder(readout="class+distillation", embedding="concatenation").eval()
    >>> x, lengths = torch.rand(2, 100, 80), torch.tensor([1.0, 0.5])
    >>> model(x, lengths).shape
    torch.Size([2, 1, 384])
    >>> class_embedding, distillation_embedding, _ = model.forward_tokens(x, lengths)
    >>> class_embedding.shape, distillation_embedding.shape
    (torch.Size([2, 1, 192]), torch.Size([2, 1, 192]))
    >>> _, maps = model.forward_with_attention(x, lengths)
    >>> model.token_attention(maps).shape  # batch, heads, frames of the sequence
    torch.Size([2, 4, 50])
    """

    def __init__(
        self,
        readout: str = "class",
        class_tokens: int = 1,
        embedding: str = "class",
        positions: str = "none",
        phonetic_size: int = 0,
        phonetic_model: nn.Module | None = None,
        channels: int = 96,
        blocks: int = 2,
        heads: int = 4,
        memory_keys: int = 0,
        memory_top_k: int = 16,
        memory_key_size: int = 32,
        memory_heads: int = 1,
        product_keys: bool = False,
        feed_forward: int = 0,
        embedding_size: int = 192,
        dropout: float = 0.0,
        n_mels: int = 80,
        front_channels: Sequence[int] = (64, 80, 96),
        front_units: int = 1,
        kernel_size: int = 3,
        time_stride: int = 2,
        front_end: BCCMT | dict | None = None,
    ):
        given = dict(locals())
        self.config = {key: given[key] for key in given.keys() - {"self", "__class__", "phonetic_model"}}
        super().__init__()
        for name, value, known in (
            ("readout", readout, READOUTS),
            ("embedding", embedding, EMBEDDINGS),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(known)}")
        if embedding != "class" and readout != "class+distillation":
            raise ValueError(f"embedding={embedding!r} needs readout='class+distillation', got {readout!r}")
        if class_tokens > 1 and readout == "mean":
            raise ValueError(f"class_tokens={class_tokens} has no use with readout='mean'")
        if blocks < 1:
            raise ValueError(f"blocks={blocks} must be at least 1")
        if phonetic_model is not None and positions != "phonetic":
            raise ValueError(f"positions={positions!r} take no phonetic input: use 'phonetic'")
        self.readout, self.embedding, self.token_size = readout, embedding, embedding_size
        if phonetic_model is not None:
            self.phonetic_model = phonetic_model.requires_grad_(False).eval()

        if front_end is None:
            front_end = ConvolutionalFrontEnd(
                n_mels, front_channels, front_units, kernel_size, time_stride, phonetic_size
            )
        else:
            front_end = self._take(BCCMT(**front_end) if isinstance(front_end, dict) else front_end)
            self.config["front_end"] = front_end.config
        self.sequence = FrameSequence(front_end, channels, positions, phonetic_size)
        self.tokens = None if readout == "mean" else Tokens(channels, class_tokens, "dist" in readout)
        self.blocks = nn.ModuleList(
            TokenBlock(
                channels,
                heads,
                Memory(channels, memory_keys, memory_top_k, memory_key_size, memory_heads, product_keys)
                if memory_keys
                else None,
                feed_forward,
                dropout,
            )
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(channels)
        outputs = 2 if readout == "class+distillation" else 1
        self.embedding_layers = nn.ModuleList(nn.Linear(channels, embedding_size) for _ in range(outputs))

    @property
    def embedding_size(self) -> int:
        """Size of the embedding that `forward` returns."""
        return self.token_size * (2 if self.embedding == "concatenation" else 1)

    @property
    def token_names(self) -> tuple[str, ...]:
        """Names of the tokens, in their order before the frames; none with `readout="mean"`."""
        return EMBEDDINGS[: 0 if self.tokens is None else self.tokens.count]

    @property
    def time_stride(self) -> int:
        """Input frames per frame of the sequence."""
        return self.sequence.front_end.time_stride

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of attention maps per stage, those of a BC-CMT front end first."""
        return (*self.sequence.front_end.depths, len(self.blocks))

    def train(self, mode: bool = True):
        """Change the mode; a phonetic network stays in evaluation mode."""
        super().train(mode)
        if "phonetic_model" in self._modules:
            self.phonetic_model.eval()
        return self

    @torch.no_grad()
    def phonetic(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the phonetic input with the phonetic network.

        Parameters
        ----------
        x, lengths : Tensor
            As in `forward`.

        Returns
        -------
        Tensor
            (batch, frames, phonetic size), without gradient, zero in the padding.

        Raises
        ------
        ValueError
            If the network returns another shape.
        """
        frames = x.shape[1]
        keep = None if lengths is None else frame_mask(valid_frames(lengths, frames), frames)[..., None]
        phonetic = self.phonetic_model(x if keep is None else x.masked_fill(~keep, 0), lengths)
        expected = (*x.shape[:2], self.sequence.phonetic_size)
        if not isinstance(phonetic, Tensor) or phonetic.shape != expected:
            given = tuple(phonetic.shape) if isinstance(phonetic, Tensor) else type(phonetic).__name__
            raise ValueError(
                f"the phonetic network {type(self.phonetic_model).__name__} gives {given} for {tuple(x.shape)}, where "
                f"the embedder takes (batch, frames, {expected[2]} = phonetic_size)"
            )
        return phonetic if keep is None else phonetic.masked_fill(~keep, 0)

    def forward(self, x: Tensor, lengths: Tensor | None = None, phonetic: Tensor | None = None) -> Tensor:
        """Embed utterances.

        Parameters
        ----------
        x : Tensor
            (batch, frames, mels), log-mel features.
        lengths : Tensor or None
            (batch,), relative to the longest utterance, in (0, 1].
        phonetic : Tensor or None
            (batch, frames, phonetic size), only with `positions="phonetic"`; None: computed by the phonetic network.

        Returns
        -------
        Tensor
            (batch, 1, embedding size).

        Raises
        ------
        ValueError
            If an input is missing, has the wrong shape, or has no frames.
        """
        return self._choose(*self._encode(x, lengths, phonetic, with_map=False)[:2])

    def forward_with_attention(
        self, x: Tensor, lengths: Tensor | None = None, phonetic: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Embed utterances and return the attention maps too.

        Parameters
        ----------
        x, lengths, phonetic : Tensor
            As in `forward`.

        Returns
        -------
        tuple
            Embedding (batch, 1, embedding size), and a list with one map per block, those of a BC-CMT front end
            first: (batch, heads, query positions, key positions). In the maps of the token blocks, position 0 is the
            class token, 1 the distillation token where there is one, and the frames follow. Each row sums to one over
            the valid keys. `token_attention` picks the row of a token.
        """
        first, second, maps = self._encode(x, lengths, phonetic, with_map=True)
        return self._choose(first, second), maps

    def forward_tokens(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        phonetic: Tensor | None = None,
        with_map: bool = False,
    ) -> tuple[Tensor, Tensor, list]:
        """Embed utterances with both tokens, for training with a teacher.

        Parameters
        ----------
        x, lengths, phonetic : Tensor
            As in `forward`.
        with_map : bool
            Return the attention maps too.

        Returns
        -------
        tuple
            Embeddings of the class token and the distillation token, each (batch, 1, token size), and the maps of
            `forward_with_attention`, or None for each.

        Raises
        ------
        ValueError
            If there is no distillation token.
        """
        first, second, maps = self._encode(x, lengths, phonetic, with_map)
        if second is None:
            raise ValueError(f"readout={self.readout!r} has no distillation token: use 'class+distillation'")
        return first, second, maps

    def token_attention(self, maps: Sequence[Tensor], token: str = "class", block: int = -1) -> Tensor:
        """Return the attention weights from a token to the frames.

        Parameters
        ----------
        maps : sequence of Tensor
            Maps from `forward_with_attention`.
        token : str
            "class" or "distillation".
        block : int
            Which map; the last by default.

        Returns
        -------
        Tensor
            (batch, heads, frames of the sequence), each frame covering `time_stride` frames of the input. Together with
            the token's weights on the tokens themselves they sum to one. Padded frames have weight zero.

        Raises
        ------
        ValueError
            If there is no such token.
        """
        known = self.token_names
        if token not in known:
            raise ValueError(
                f"no {token} token with readout={self.readout!r}: it has {', '.join(known) or 'none'}"
            )
        return maps[block][:, :, known.index(token), len(known) :]

    def _take(self, encoder: BCCMT) -> BCCMT:
        return encoder.without_head()

    def _encode(self, x: Tensor, lengths: Tensor | None, phonetic: Tensor | None, with_map: bool):
        """Return the embedding of the class token or the mean, that of the distillation token or None, and the maps."""
        if phonetic is None and "phonetic_model" in self._modules:
            phonetic = self.phonetic(x, lengths)
        return self.read_sequence(*self.sequence(x, lengths, phonetic, with_map), with_map)

    def read_sequence(self, x: Tensor, keep: Tensor | None, maps: list, with_map: bool):
        """Continue `_encode` from the front end's sequence."""
        everything = keep
        if self.tokens is not None:
            x = self.tokens(x)
            if keep is not None:
                everything = torch.cat([keep.new_ones(keep.shape[0], self.tokens.count), keep], dim=1)
        for block in self.blocks:
            x, weights = block(x, everything, with_map)
            maps.append(weights)
        x = self.norm(x)
        if self.tokens is not None:
            states = [x[:, index : index + 1] for index in range(self.tokens.count)]
        elif keep is None:
            states = [x.mean(1, keepdim=True)]
        else:
            kept = keep.unsqueeze(-1)
            states = [x.masked_fill(~kept, 0).sum(1, keepdim=True) / kept.sum(1, keepdim=True)]
        outputs = [layer(state) for layer, state in zip(self.embedding_layers, states, strict=True)]
        return outputs[0], outputs[1] if len(outputs) > 1 else None, maps

    def _choose(self, first: Tensor, second: Tensor | None) -> Tensor:
        """Choose or combine the tokens' embeddings for inference."""
        if self.embedding == "class":
            return first
        if self.embedding == "distillation":
            return second
        return (
            torch.cat([first, second], dim=-1) if self.embedding == "concatenation" else (first + second) / 2
        )


def token_bccmt_tiny(front_end: dict | None = None, **options) -> TokenEmbedder:
    """Tokens on the last feature map of BC-CMT Tiny, 0.3 M parameters (our extension).

    Parameters
    ----------
    front_end : dict or None
        Options of `bccmt_tiny`.
    **options
        Options of `TokenEmbedder`, except the convolutional front end's; by default one block of 96 channels.

    Examples
    --------
    >>> token_bccmt_tiny(readout="class").eval()(torch.rand(2, 100, 80)).shape
    torch.Size([2, 1, 192])
    """
    return TokenEmbedder(front_end=bccmt_tiny(**(front_end or {})), **{"blocks": 1, **options})
