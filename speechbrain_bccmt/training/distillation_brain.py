"""The training loops: speaker classification (`SpeakerBrain`), and the same with distillation from a teacher."""

from __future__ import annotations

import torch

from speechbrain_bccmt.losses import match_blocks
from speechbrain_bccmt.training.speaker_brain import SpeakerBrain
from speechbrain_bccmt.training.teachers import FrozenTeacher, LearningTeacher

__all__ = ["DistillationBrain", "SpeakerBrain"]


class DistillationBrain(SpeakerBrain):
    """Trains a student that also imitates a teacher: its attention maps, its embeddings, its predictions.

    The loss is the speaker loss of the student's embedding (of its class token, where it has two), plus, as far as
    they are given,

    - `kd_weight` times the divergence of the attention maps (hyperparameter `attention_loss`, an `AttentionMapLoss`).
      Blocks are matched by `match_blocks` unless the loss has pairs of its own;
    - `embedding_weight` times the distance of the embeddings (module `embedding_loss`);
    - `token_weight` times what the distillation token lacks of the teacher's predictions (hyperparameter
      `token_loss`, a `TokenDistillationLoss`). The token's own classifier is the module `distillation_classifier`, and
      the student gives both tokens by `forward_tokens`.

    Student and teacher see the same crops, augmentation and masks; the optional module `student_erasing`, such as a
    `SpecAugment`, erases more of what the student sees. A `LearningTeacher` is trained alongside, by a speaker
    loss of its own; no loss of the student reaches it.

    Parameters
    ----------
    teacher : FrozenTeacher or LearningTeacher
        See `load_teacher`.
    **kwargs
        As for `SpeakerBrain`.

    Raises
    ------
    ValueError
        If there is nothing to imitate, the student or the teacher does not give what is to be imitated, or what they
        give does not match; checked on half a second of noise before the first batch.
    """

    def __init__(self, teacher: LearningTeacher, **kwargs):
        self.teacher_learns = not isinstance(teacher, FrozenTeacher)
        if self.teacher_learns:
            kwargs["modules"] = {**kwargs["modules"], "teacher": teacher}
        super().__init__(**kwargs)
        if self.distributed_launch or self.data_parallel_backend:
            raise ValueError(
                "distillation trains on one device: start it without torchrun and data_parallel_backend"
            )
        self.teacher = teacher.to(self.device)
        self.attention_loss = getattr(self.hparams, "attention_loss", None)
        self.token_loss = getattr(self.hparams, "token_loss", None)
        self.embedding_weight = getattr(self.hparams, "embedding_weight", 0)
        if self.attention_loss is None and self.token_loss is None and not self.embedding_weight > 0:
            raise ValueError(
                "nothing to imitate: give attention_loss, token_loss or an embedding_weight above 0"
            )
        for name, needed in (
            ("distillation_classifier", self.token_loss is not None),
            ("embedding_loss", self.embedding_weight > 0),
        ):
            if needed and name not in self.modules:
                raise ValueError(f"the modules lack {name}, which this distillation trains with")
        if self.checkpointer is not None:
            for name in ("embedding_loss", "distillation_classifier", "teacher"):
                if name in self.modules and any(True for _ in self.modules[name].parameters()):
                    self.checkpointer.add_recoverable(name, self.modules[name])
        self._check_fit()

    def _check_fit(self):
        student, teacher = self.modules.embedding_model, self.teacher.model
        if self.attention_loss is not None:
            for role, model in (("student", student), ("teacher", teacher)):
                if not hasattr(model, "forward_with_attention"):
                    raise ValueError(
                        f"{role} {type(model).__name__} gives no attention maps (forward_with_attention)"
                    )
            depths = getattr(student, "depths", None), getattr(teacher, "depths", None)
            if self.attention_loss.pairs is None and None not in depths:
                self.attention_loss.pairs = match_blocks(*depths)
        if self.token_loss is not None and not hasattr(student, "forward_tokens"):
            raise ValueError(
                f"student {type(student).__name__} has no distillation token (forward_tokens): use a TokenEmbedder "
                "with readout='class+distillation', or leave out token_loss"
            )
        if (self.token_loss is not None or self.teacher_learns) and self.teacher.classifier is None:
            raise ValueError(
                "the teacher has no classifier, whose predictions are needed: give load_teacher one"
            )
        self.modules.eval()
        with torch.no_grad():
            features = self.modules.compute_features(0.01 * torch.randn(1, 8000, device=self.device))
            lengths = torch.ones(1, device=self.device)
            try:
                shown = self._show_teacher(features, lengths)
            except (RuntimeError, ValueError) as error:
                message = str(error).splitlines()[0]
                raise ValueError(f"the teacher does not take the student's features: {message}") from error
            self._imitation_losses(self._show_student(features, lengths), shown, lengths)

    def _show_student(self, features, lengths):
        """Return the student's embedding, its predictions by the distillation token, and its maps; or None."""
        student, maps, predictions = self.modules.embedding_model, None, None
        if self.token_loss is not None:
            with_map = {"with_map": True} if self.attention_loss is not None else {}
            embeddings, imitating, maps = student.forward_tokens(features, lengths, **with_map)
            with torch.autocast(self.device_type, enabled=False):
                predictions = self.modules.distillation_classifier(imitating.float())
        elif self.attention_loss is not None:
            embeddings, maps = student.forward_with_attention(features, lengths)
        else:
            embeddings = student(features, lengths)
        return embeddings, predictions, maps

    def _show_teacher(self, features, lengths):
        """Return the teacher's embedding, its predictions and its maps; or None."""
        maps = predictions = None
        if self.attention_loss is not None:
            embeddings, maps = self.teacher.forward_with_attention(features, lengths)
        else:
            embeddings = self.teacher(features, lengths)
        if self.token_loss is not None or self.teacher_learns:
            predictions = self.teacher.classify(embeddings)
        return embeddings, predictions, maps

    def compute_forward(self, batch, stage):
        """Show the same features to student and teacher, but for what is erased for the student alone."""
        batch = batch.to(self.device)
        features, lengths = self.extract_features(batch, stage)
        teacher = self._show_teacher(features, lengths)
        if "student_erasing" in self.modules:
            features = self.modules.student_erasing(features)
        student = self._show_student(features, lengths)
        return {
            "cosines": self.classify(student[0]),
            "student": student,
            "teacher": teacher,
            "lengths": lengths,
        }

    def compute_losses(self, predictions, batch):
        """Add the distillation losses to the speaker loss."""
        losses = super().compute_losses(predictions, batch)
        if self.teacher_learns:
            teacher_cosines = predictions["teacher"][1]
            teacher_loss = self.hparams.compute_cost(teacher_cosines, batch.spk_id_encoded.data)
            losses["teacher_loss"] = (1.0, teacher_loss)
        return losses | self._imitation_losses(
            predictions["student"], predictions["teacher"], predictions["lengths"]
        )

    def _imitation_losses(self, student, teacher, lengths):
        """Compare what student and teacher show; the losses let no gradient into the teacher."""
        losses = {}
        if self.attention_loss is not None:
            attention_loss = self.attention_loss(student[2], teacher[2], lengths)
            losses["attention_loss"] = (self.hparams.kd_weight, attention_loss)
        if self.embedding_weight > 0:
            embedding_loss = self.modules.embedding_loss(student[0], teacher[0])
            losses["embedding_loss"] = (self.embedding_weight, embedding_loss)
        if self.token_loss is not None:
            losses["token_loss"] = (self.hparams.token_weight, self.token_loss(student[1], teacher[1]))
        return losses
