"""Speaker classification with distillation from a teacher."""

from __future__ import annotations

from operator import methodcaller

import torch

from speechbrain_bccmt.losses import match_blocks
from speechbrain_bccmt.training.distributed import apply
from speechbrain_bccmt.training.speaker_brain import SpeakerBrain
from speechbrain_bccmt.training.targets import StoredTargets
from speechbrain_bccmt.training.teachers import FrozenTeacher, LearningTeacher

OUTPUTS = ("attention_maps", "embeddings", "predictions", "targets")


class DistillationBrain(SpeakerBrain):
    """Trains a student that also imitates a teacher.

    The loss is the speaker loss of the student's embedding (of its class token, where it has two), plus the weighted
    sum of the hyperparameter `distillation_losses`. It maps a name, under which the loss is logged, to a dict of

    - `compares`: the output of student and teacher that is compared, one of `OUTPUTS`; `targets` are stored
      embeddings of a teacher, see `StoredTargets`;
    - `weight`: the factor in the sum. 0 computes and logs the loss without training on it, None leaves it out;
    - `loss`: a module called with the student's and the teacher's output, and with the relative lengths for attention
      maps. Its parameters are trained too. For targets it may be a function of all of them that returns the module.

    Blocks are matched by `match_blocks` unless the loss of the attention maps has pairs of its own. Predictions are
    those of the student's distillation token (`forward_tokens`) by the module `distillation_classifier`.

    Student and teacher see the same crops, augmentation and masks; the optional module `student_erasing`, such as a
    `SpecAugment`, erases more of the student's input. A `LearningTeacher` is trained alongside, with a speaker loss of
    its own; no loss of the student reaches it. Under torchrun, a loss that compares the utterances of a batch with each
    other, such as `RelationalDistillationLoss`, compares those of one process.

    Parameters
    ----------
    teacher : FrozenTeacher, LearningTeacher or None
        See `load_teacher`; None if only targets are compared.
    targets : StoredTargets or None
        Needed if targets are compared.
    **kwargs
        As for `SpeakerBrain`.

    Raises
    ------
    ValueError
        If no loss has a weight, or student and teacher lack an output or have ones that do not match; checked on half a
        second of noise before the first batch.
    """

    def __init__(self, teacher: LearningTeacher | None, targets: StoredTargets | None = None, **kwargs):
        losses = (kwargs["hparams"].get("distillation_losses") or {}).items()
        self.distillation_losses = {name: entry for name, entry in losses if entry["weight"] is not None}
        if not self.distillation_losses:
            raise ValueError("nothing to imitate: give at least one of distillation_losses a weight")
        for name, entry in self.distillation_losses.items():
            if entry["compares"] not in OUTPUTS:
                raise ValueError(f"{name} compares '{entry['compares']}', expected {', '.join(OUTPUTS)}")
        self.compared = {entry["compares"] for entry in self.distillation_losses.values()}
        self.targets = targets
        if "targets" in self.compared and targets is None:
            raise ValueError("stored targets are compared, but there are none: give target_files")
        if self.compared != {"targets"} and teacher is None:
            raise ValueError(
                f"{', '.join(sorted(self.compared - {'targets'}))} need a teacher: give teacher_source"
            )
        self.teacher_learns = teacher is not None and not isinstance(teacher, FrozenTeacher)
        modules = dict(kwargs.pop("modules"))
        for name, entry in self.distillation_losses.items():
            made = isinstance(entry["loss"], torch.nn.Module)
            modules[name] = entry["loss"] if made else entry["loss"](targets.bank)
        if self.teacher_learns:
            modules["teacher"] = teacher
        super().__init__(modules=modules, **kwargs)
        if self.data_parallel_backend:
            raise ValueError(
                "distillation trains on several devices with torchrun, not data_parallel_backend"
            )
        self.teacher = None if teacher is None else teacher.to(self.device)
        if "predictions" in self.compared and "distillation_classifier" not in self.modules:
            raise ValueError("the modules lack distillation_classifier, which predictions are compared by")
        if self.checkpointer is not None:
            for name in (*self.distillation_losses, "distillation_classifier", "teacher"):
                if name in self.modules and any(True for _ in self.modules[name].parameters()):
                    self.checkpointer.add_recoverable(name, self.modules[name])
        self._check_fit()

    def _check_fit(self):
        student, teacher = self.modules.embedding_model, getattr(self.teacher, "model", None)
        if "attention_maps" in self.compared:
            for role, model in (("student", student), ("teacher", teacher)):
                if not hasattr(model, "forward_with_attention"):
                    raise ValueError(
                        f"{role} {type(model).__name__} gives no attention maps (forward_with_attention)"
                    )
            depths = getattr(student, "depths", None), getattr(teacher, "depths", None)
            for name in self.distillation_losses:
                if getattr(self.modules[name], "pairs", ()) is None and None not in depths:
                    self.modules[name].pairs = match_blocks(*depths)
        if "predictions" in self.compared and not hasattr(student, "forward_tokens"):
            raise ValueError(
                f"student {type(student).__name__} has no distillation token (forward_tokens): use a TokenEmbedder "
                "with readout='class+distillation', or compare no predictions"
            )
        if ("predictions" in self.compared or self.teacher_learns) and self.teacher.classifier is None:
            raise ValueError(
                "the teacher has no classifier, whose predictions are needed: give load_teacher one"
            )
        self.modules.eval()
        with torch.no_grad():
            features = self.modules.compute_features(
                0.01 * torch.randn(1, 8000, device=self.device).repeat(2, 1)
            )
            lengths = torch.ones(2, device=self.device)
            try:
                expected = self._teacher_outputs(features, lengths)
                if self.targets is not None:
                    expected["targets"] = self.targets.bank[:2, None].to(self.device)
            except (RuntimeError, ValueError) as error:
                message = str(error).splitlines()[0]
                raise ValueError(f"the teacher does not take the student's features: {message}") from error
            self._compare(self._student_outputs(features, lengths), expected, lengths)

    def _student_outputs(self, features, lengths):
        student = self.modules.embedding_model
        if "predictions" in self.compared:
            with_map = {"with_map": True} if "attention_maps" in self.compared else {}
            forward = methodcaller("forward_tokens", features, lengths, **with_map)
            embeddings, imitating, maps = apply(student, forward)
            with torch.autocast(self.device_type, enabled=False):
                predictions = self.modules.distillation_classifier(imitating.float())
            return {"embeddings": embeddings, "predictions": predictions, "attention_maps": maps}
        return self._embeddings_and_maps(student, features, lengths)

    def _teacher_outputs(self, features, lengths):
        if self.teacher is None:
            return {}

        def outputs(teacher):
            found = self._embeddings_and_maps(teacher, features, lengths)
            if "predictions" in self.compared or self.teacher_learns:
                found["predictions"] = teacher.classify(found["embeddings"])
            return found

        return apply(self.modules.teacher if self.teacher_learns else self.teacher, outputs)

    def _embeddings_and_maps(self, model, features, lengths):
        if "attention_maps" in self.compared:
            forward = methodcaller("forward_with_attention", features, lengths)
            embeddings, maps = apply(model, forward)
            return {"embeddings": embeddings, "attention_maps": maps}
        return {"embeddings": model(features, lengths)}

    def compute_forward(self, batch, stage):
        """Feed the same features to student and teacher, except for what is erased for the student alone."""
        batch = batch.to(self.device)
        features, lengths = self.extract_features(batch, stage)
        teacher = self._teacher_outputs(features, lengths)
        if "targets" in self.compared:
            teacher["targets"] = self.targets(batch.id, batch.speed).to(self.device)
        if "student_erasing" in self.modules:
            features = self.modules.student_erasing(features)
        student = self._student_outputs(features, lengths)
        return {
            "cosines": self.classify(student["embeddings"]),
            "student": student,
            "teacher": teacher,
            "lengths": lengths,
        }

    def compute_losses(self, predictions, batch):
        """Add the distillation losses to the speaker loss."""
        losses = super().compute_losses(predictions, batch)
        student, teacher = predictions["student"], predictions["teacher"]
        if self.teacher_learns:
            losses["teacher_loss"] = (1.0, self.speaker_loss(teacher["predictions"], batch))
        return losses | self._compare(student, teacher, predictions["lengths"])

    def _compare(self, student, teacher, lengths):
        """Compute the distillation losses, which pass no gradients to the teacher."""
        losses = {}
        for name, entry in self.distillation_losses.items():
            output = entry["compares"]
            padding = (lengths,) if output == "attention_maps" else ()
            own = student["embeddings" if output == "targets" else output]
            value = self.modules[name](own, teacher[output], *padding)
            losses[name] = (entry["weight"], value)
        return losses
