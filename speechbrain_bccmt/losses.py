"""Distillation losses, which train a small encoder on a large one's output besides the speaker labels.

The idea of guiding the student's self-attention maps by the teacher's is the paper's (Choi, Yang, Chang,
IEEE/ACM TASLP 32, 2024). The divergence, the matching of blocks and the weights are our reading. The separate token
that mimics the teacher's predictions is from Mingote et al. (Digital Signal Processing 133, 2023); its loss is
DeiT's (arXiv 2012.12877). The embedding losses need no labels and work with any teacher.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def match_blocks(student_depths: Sequence[int], teacher_depths: Sequence[int]) -> list[tuple[int, int]]:
    """Pair blocks of student and teacher, stage by stage.

    Stages of equal depth are matched block by block, others by their last block, whose map is the stage's result.

    Parameters
    ----------
    student_depths, teacher_depths : sequence of int
        Number of blocks in each stage.

    Returns
    -------
    list of tuple of int
        Pairs (student block, teacher block), counted through all stages from 0.

    Raises
    ------
    ValueError
        If the numbers of stages differ.

    Examples
    --------
    >>> match_blocks((1, 2, 1), (1, 2, 3))
    [(0, 0), (1, 1), (2, 2), (3, 5)]
    """
    if len(student_depths) != len(teacher_depths):
        raise ValueError(
            f"student has {len(student_depths)} stages and teacher {len(teacher_depths)}: "
            "give the pairs of blocks"
        )
    pairs = []
    student_start = teacher_start = 0
    for student_depth, teacher_depth in zip(student_depths, teacher_depths, strict=True):
        if student_depth == teacher_depth:
            pairs += [(student_start + i, teacher_start + i) for i in range(student_depth)]
        else:
            pairs.append((student_start + student_depth - 1, teacher_start + teacher_depth - 1))
        student_start += student_depth
        teacher_start += teacher_depth
    return pairs


class AttentionMapLoss(nn.Module):
    """Kullback-Leibler divergence KL(teacher || student) of attention maps.

    Each row of a map, the weights of one query frame over the key frames, is a distribution. The divergence
    is averaged over valid queries, heads, utterances, and matched pairs of blocks. If the numbers of heads
    differ, both maps are averaged over their heads first. Padded keys have zero weight in both maps and add
    nothing.

    Parameters
    ----------
    pairs : sequence of pairs of int, optional
        Matched blocks as (student, teacher), see `match_blocks`. By default one to one, which requires equal
        numbers of maps.

    Examples
    --------
    >>> maps = [torch.softmax(torch.randn(2, 4, 10, 5), -1)]
    >>> AttentionMapLoss()(maps, maps, torch.tensor([1.0, 0.5])).item()
    0.0
    """

    def __init__(self, pairs: Sequence[Sequence[int]] | None = None):
        super().__init__()
        self.pairs = None if pairs is None else [(int(student), int(teacher)) for student, teacher in pairs]

    def forward(
        self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor], lengths: Tensor | None = None
    ) -> Tensor:
        """Compare the maps of a batch.

        Parameters
        ----------
        student_maps, teacher_maps : sequence of Tensor
            One per block, (batch, heads, query frames, key frames); rows sum to one over the valid keys. No
            gradient flows into the teacher's.
        lengths : Tensor, optional
            (batch,), relative in (0, 1]; queries beyond them are left out.

        Returns
        -------
        Tensor
            Scalar, at least 0, in nats.

        Raises
        ------
        ValueError
            If the lists or the maps' shapes do not match.
        """
        losses = []
        for student_block, teacher_block in self._resolve(len(student_maps), len(teacher_maps)):
            student, teacher = student_maps[student_block], teacher_maps[teacher_block]
            if (
                student.ndim != 4
                or teacher.ndim != 4
                or student.shape[::2] != teacher.shape[::2]
                or (student.shape[-1] != teacher.shape[-1])
            ):
                raise ValueError(
                    f"map {student_block} of the student, {tuple(student.shape)}, does not match map "
                    f"{teacher_block} of the teacher, {tuple(teacher.shape)}: both must be (batch, heads, "
                    "queries, keys) and may differ in heads only; use the same attention, time strides and "
                    "key reductions"
                )
            losses.append(self._divergence(student, teacher.detach(), lengths))
        return torch.stack(losses).mean()

    def _resolve(self, n_student, n_teacher):
        if self.pairs is None:
            if n_student != n_teacher:
                raise ValueError(
                    f"student gives {n_student} maps and teacher {n_teacher}: give `pairs` of blocks"
                )
            return [(block, block) for block in range(n_student)]
        for student_block, teacher_block in self.pairs:
            if not (0 <= student_block < n_student and 0 <= teacher_block < n_teacher):
                raise ValueError(
                    f"pair ({student_block}, {teacher_block}) is out of range: student has blocks 0 to "
                    f"{n_student - 1}, teacher 0 to {n_teacher - 1}"
                )
        return self.pairs

    @staticmethod
    def _divergence(student, teacher, lengths):
        student, teacher = student.float(), teacher.float()
        if student.shape[1] != teacher.shape[1]:
            student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
        # The floor keeps the logarithm finite where a weight is zero, as every padded key's is.
        log_ratio = teacher.clamp(min=1e-8).log() - student.clamp(min=1e-8).log()
        per_query = (teacher * log_ratio).sum(-1).mean(1)
        if lengths is None:
            return per_query.mean()
        # Queries are strided frames. Rounding down never counts a padded one.
        queries = per_query.shape[1]
        valid = (lengths * queries + 1e-3).floor().clamp(min=1, max=queries)
        mask = torch.arange(queries, device=per_query.device) < valid.to(per_query.device).unsqueeze(1)
        return per_query[mask].mean()


class EmbeddingDistillationLoss(nn.Module):
    """Cosine distance between the student's and the teacher's embedding, from 0 (same direction) to 2.

    Parameters
    ----------
    student_size, teacher_size : int, optional
        Sizes of the embeddings. If they differ, a learnt projection maps the student's to the teacher's size.

    Examples
    --------
    >>> loss = EmbeddingDistillationLoss(student_size=64, teacher_size=192)
    >>> loss(torch.randn(2, 1, 64), torch.randn(2, 1, 192)).shape
    torch.Size([])
    """

    def __init__(self, student_size: int | None = None, teacher_size: int | None = None):
        super().__init__()
        same = student_size == teacher_size
        self.projection = nn.Identity() if same else nn.Linear(student_size, teacher_size, bias=False)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare embeddings (batch, 1, size) or (batch, size); no gradient flows into the teacher's.

        Raises
        ------
        ValueError
            If the sizes differ after the projection.
        """
        student = self.projection(student)
        if student.shape != teacher.shape:
            raise ValueError(
                f"embeddings {tuple(student.shape)} and {tuple(teacher.shape)} differ in shape: "
                "give student_size and teacher_size"
            )
        return (1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).mean()


class RelationalDistillationLoss(nn.Module):
    """Mean squared difference between the student's and the teacher's cosine similarities within a batch.

    Embeddings may have different sizes, as only their similarities are compared. After similarity-preserving
    distillation (Tung and Mori, arXiv 1907.09682), with cosines in place of normalised products.

    Examples
    --------
    >>> teacher = torch.randn(4, 1, 192)
    >>> RelationalDistillationLoss()(2 * teacher[..., :64], teacher[..., :64]).item() < 1e-10
    True
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare embeddings (batch, 1, size) or (batch, size); no gradient flows into the teacher's.

        Raises
        ------
        ValueError
            If there are fewer than two utterances, or the numbers differ.
        """
        student, teacher = (_unit_rows(embeddings) for embeddings in (student, teacher.detach()))
        if len(student) < 2 or len(student) != len(teacher):
            raise ValueError(
                f"{len(student)} and {len(teacher)} embeddings: expected as many of both, two at least"
            )
        others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
        return F.mse_loss((student @ student.T)[others], (teacher @ teacher.T)[others])


class BankDistillationLoss(nn.Module):
    """Divergence of the similarities to a bank of the teacher's embeddings, as softmax distributions.

    KL(teacher || student) of softmax(scale * cosines to the bank), in nats: the student learns the teacher's view of
    which voices resemble an utterance. A label-free, contrastive form of distillation (arXiv 2212.03090). Both
    are compared with the same bank, so the student's embeddings live in the teacher's space.

    Parameters
    ----------
    bank : Tensor
        (N, size), the teacher's embeddings, such as those of all training utterances. Their mean is subtracted from the
        bank and from the teacher's embeddings, but not from the student's: it learns to be centred.
    scale : float
        Factor on the cosines.
    sample : int or None
        Size of a random part of the bank to compare a batch with, besides the batch itself; None: the whole bank.

    Raises
    ------
    ValueError
        If the bank has fewer than two embeddings, or scale or sample is not positive.

    Examples
    --------
    >>> bank = torch.randn(100, 16)
    >>> loss = BankDistillationLoss(bank)
    >>> round(loss(bank[:4] - bank.mean(0), bank[:4]).item(), 6), loss(torch.randn(4, 16), bank[:4]).item() > 0.1
    (0.0, True)
    """

    def __init__(self, bank: Tensor, scale: float = 20.0, sample: int | None = None):
        super().__init__()
        if bank.ndim != 2 or len(bank) < 2:
            raise ValueError(
                f"the bank has shape {tuple(bank.shape)}, expected (embeddings, size), two at least"
            )
        if not scale > 0 or (sample is not None and sample < 1):
            raise ValueError(f"scale={scale} and sample={sample} must be positive")
        self.scale, self.sample = scale, sample
        bank = bank.detach().float()
        # Constants, not stored in checkpoints.
        self.register_buffer("mean", bank.mean(0), persistent=False)
        self.register_buffer("bank", F.normalize(bank - self.mean, dim=1), persistent=False)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare embeddings (batch, 1, size) or (batch, size); no gradient flows into the teacher's.

        Raises
        ------
        ValueError
            If an embedding's size differs from the bank's.
        """
        for who, embeddings in (("student", student), ("teacher", teacher)):
            if embeddings.shape[-1] != self.bank.shape[1]:
                raise ValueError(
                    f"the {who}'s embeddings have size {embeddings.shape[-1]}, those of the bank {self.bank.shape[1]}"
                )
        teacher = _unit_rows(teacher.detach().float() - self.mean)
        bank = self.bank
        if self.sample is not None and self.sample < len(bank):
            chosen = torch.randint(len(bank), (self.sample,), device=bank.device)
            bank = torch.cat([teacher, bank[chosen]])
        student, teacher = (
            F.log_softmax(self.scale * embeddings @ bank.T, 1)
            for embeddings in (_unit_rows(student), teacher)
        )
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _unit_rows(embeddings: Tensor) -> Tensor:
    """Scale embeddings (batch, 1, size) or (batch, size) to unit length, (batch, size) in single precision."""
    return F.normalize(embeddings.flatten(0, -2).float(), dim=1)


class TokenDistillationLoss(nn.Module):
    """Loss of the distillation token's predictions against the teacher's.

    Soft: T^2 KL(teacher || student) of the predictions softened by the temperature T, in nats, averaged over the
    batch. Hard: cross-entropy of the student with the teacher's most likely class. With DeiT's balance, (1 - a) of
    the label loss and a of this one, the weight of this loss is a / (1 - a): 1 for DeiT's a = 0.5.

    Parameters
    ----------
    temperature : float
        T in the soft form.
    hard : bool
        Use the teacher's best class instead of its probabilities.
    teacher_scale, student_scale : float
        Factor from predictions to logits: 1 for a linear classifier; for a cosine classifier the scale of its
        margin loss, without which the softmax over cosines would be nearly flat.

    Raises
    ------
    ValueError
        If the temperature or a scale is not positive.

    Notes
    -----
    DeiT's code divides by batch times classes; this loss divides by the batch, the mean of a divergence.

    Examples
    --------
    >>> predictions = torch.randn(4, 1, 10)
    >>> TokenDistillationLoss(temperature=3)(predictions, predictions).item()
    0.0
    """

    def __init__(
        self,
        temperature: float = 1.0,
        hard: bool = False,
        teacher_scale: float = 1.0,
        student_scale: float = 1.0,
    ):
        super().__init__()
        for name, value in (
            ("temperature", temperature),
            ("teacher_scale", teacher_scale),
            ("student_scale", student_scale),
        ):
            if not value > 0:
                raise ValueError(f"{name}={value} must be positive")
        self.temperature, self.hard = temperature, hard
        self.teacher_scale, self.student_scale = teacher_scale, student_scale

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare predictions (batch, 1, classes) or (batch, classes); no gradient flows into the teacher's.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                f"predictions {tuple(student.shape)} of the student and {tuple(teacher.shape)} of the teacher differ "
                "in shape: train both on the same classes"
            )
        student = self.student_scale * student.flatten(0, -2).float()
        teacher = self.teacher_scale * teacher.detach().flatten(0, -2).float()
        if self.hard:
            return F.cross_entropy(student, teacher.argmax(-1))
        student, teacher = (F.log_softmax(logits / self.temperature, -1) for logits in (student, teacher))
        return self.temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
