"""The training loops: schedules, checkpoints, resuming, bad losses, and what the teacher sees."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from speechbrain import Stage
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from torch import nn

from speechbrain_bccmt.lobes.bccmt import bccmt_small, bccmt_tiny
from speechbrain_bccmt.lobes.token_embedder import TokenEmbedder
from speechbrain_bccmt.losses import AttentionMapLoss, EmbeddingDistillationLoss, TokenDistillationLoss
from speechbrain_bccmt.training.augmentation import SpecAugment
from speechbrain_bccmt.training.checkpoints import AtomicCheckpointer
from speechbrain_bccmt.training.crops import TrainingCrops
from speechbrain_bccmt.training.curves import read_train_log
from speechbrain_bccmt.training.distillation_brain import DistillationBrain
from speechbrain_bccmt.training.speaker_brain import SpeakerBrain
from speechbrain_bccmt.training.teachers import FrozenTeacher, LearningTeacher
from speechbrain_bccmt.trials.read import Trials


class Killed(Exception):
    """Stands in for the death of the process."""


class Toy(nn.Module):
    """The smallest encoder with batch statistics and attention maps, for speed."""

    depths = (1,)

    def __init__(self, embedding_size=16, n_mels=80, heads=2):
        super().__init__()
        self.heads, self.norm = heads, nn.BatchNorm1d(n_mels)
        self.query, self.key = nn.Linear(n_mels, 8 * heads), nn.Linear(n_mels, 8 * heads)
        self.embedding = nn.Linear(2 * n_mels, embedding_size)

    def forward(self, features, lengths=None):
        return self.forward_with_attention(features, lengths)[0]

    def forward_with_attention(self, features, lengths=None):
        x = self.norm(features.transpose(1, 2)).transpose(1, 2)
        query, key = (
            layer(x).unflatten(-1, (self.heads, 8)).transpose(1, 2) for layer in (self.query, self.key)
        )
        weights = torch.softmax(query @ key.transpose(2, 3), -1)
        attended = weights.mean(1) @ x
        return self.embedding(torch.cat([x, attended], -1).mean(1, keepdim=True)), [weights]


def make(
    folder,
    rows,
    brain_class=SpeakerBrain,
    epochs=2,
    options=None,
    run_opts=None,
    batch_size=3,
    opt_class=torch.optim.AdamW,
    **brain,
):
    """Return a brain and the arguments of its fit."""
    torch.manual_seed(0)
    crops = TrainingCrops(rows, folder / "save" / "label_encoder.txt", crop_seconds=0.3)
    modules = {
        "compute_features": Fbank(n_mels=80),
        "mean_var_norm": InputNormalization(norm_type="sentence", std_norm=False),
        "spec_augment": SpecAugment(0, 1, 0, 1),
        "embedding_model": Toy(),
        "classifier": Classifier(16, out_neurons=crops.n_classes),
    }
    hparams = {
        "compute_cost": LogSoftmaxWrapper(AdditiveAngularMargin(0.2, 30)),
        "margin_start_epoch": 1,
        "margin_end_epoch": 2,
        "lr": 1e-3,
        "lr_final": 0,
        "warmup_epochs": 0.5,
        "valid_interval": 1,
        "train_logger": FileTrainLogger(folder / "train_log.txt", precision=3),
        **(options or {}),
    }
    counter = EpochCounter(epochs)
    recoverables = {name: modules[name] for name in ("embedding_model", "classifier")} | {"counter": counter}
    brain = brain_class(
        modules=modules | hparams.pop("modules", {}),
        opt_class=partial(opt_class, lr=1e-3),
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True, **(run_opts or {})},
        checkpointer=AtomicCheckpointer(folder / "save", recoverables),
        **brain,
    )
    ids = list(rows)
    dev = [{"ID": key, **rows[key]} for key in ids[:6]]
    trials = Trials(
        ids=ids[:6],
        enrol=np.array([0, 1, 0, 1]),
        test=np.array([3, 4, 1, 2]),
        target=np.array([True, True, False, False]),
    )
    loader = {"batch_size": batch_size, "shuffle": True, "drop_last": True}
    return brain, partial(brain.fit, counter, crops, (dev, trials, [0] * 6), train_loader_kwargs=loader)


def weights(brain):
    return {name: value.clone() for name, value in brain.modules.state_dict().items()}


class Recording(SpeakerBrain):
    """Writes down the step, and dies at one if asked to."""

    kill_at = None

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        self.seen = [
            *getattr(self, "seen", []),
            (self.epoch, self.step, tuple(batch.id), self.lr, self.margin),
        ]
        if self.optimizer_step == self.kill_at:
            raise Killed


def test_a_killed_training_resumes_at_its_step_and_ends_the_same(rows, tmp_path):
    brain, fit = make(tmp_path / "whole", rows, Recording)
    fit()
    assert [step for _, step, *_ in brain.seen] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert brain.training_set.epoch == 2  # the second epoch has crops of its own

    killed, fit = make(tmp_path / "killed", rows, Recording, run_opts={"ckpt_interval_steps": 2})
    killed.kill_at = 7  # the last checkpoint is that of step 6, in the middle of the second epoch
    with pytest.raises(Killed):
        fit()
    resumed, fit = make(tmp_path / "killed", rows, Recording, run_opts={"ckpt_interval_steps": 2})
    fit()
    assert resumed.seen == brain.seen[6:]
    for name, value in weights(brain).items():
        assert torch.allclose(value, weights(resumed)[name], atol=1e-6), name


def test_a_training_killed_between_the_last_step_and_the_dev_trials_resumes(rows, tmp_path):
    def die(progressbar):
        raise Killed

    killed, fit = make(tmp_path, rows, run_opts={"ckpt_interval_steps": 2})
    killed.dev_eer = die
    with pytest.raises(Killed):
        fit()
    resumed, fit = make(tmp_path, rows, Recording, run_opts={"ckpt_interval_steps": 2})
    fit()
    assert [(epoch, step) for epoch, step, *_ in resumed.seen] == [(2, 1), (2, 2), (2, 3), (2, 4)]
    assert [line["epoch"] for line in read_train_log(tmp_path / "train_log.txt")] == [1, 2]


def test_gradients_are_accumulated(rows, tmp_path):
    brain, fit = make(tmp_path, rows, Recording, run_opts={"grad_accumulation_factor": 2})
    fit()
    assert brain.optimizer_step == 4 and len(brain.seen) == 8
    assert brain.seen[-1][3] < brain.seen[0][3]


def test_a_finished_training_goes_on_with_more_epochs(rows, tmp_path):
    _, fit = make(tmp_path, rows)
    fit()
    brain, fit = make(tmp_path, rows, Recording, epochs=3)
    fit()
    assert [(epoch, step) for epoch, step, *_ in brain.seen] == [(3, 1), (3, 2), (3, 3), (3, 4)]
    assert [line["epoch"] for line in read_train_log(tmp_path / "train_log.txt")] == [1, 2, 3]


def test_learning_rate_and_margin_follow_their_schedules(rows, tmp_path):
    brain, fit = make(tmp_path, rows, Recording, epochs=3)
    fit()
    rates, margins = zip(*[entry[3:] for entry in brain.seen], strict=True)
    assert rates[:3] == (5e-4, 1e-3, 1e-3) and list(rates[2:]) == sorted(rates[2:], reverse=True)
    assert rates[-1] < 1e-4
    assert margins == pytest.approx([0] * 5 + [0.05, 0.1, 0.15] + [0.2] * 4)
    assert brain.optimizer.param_groups[0]["lr"] == rates[-1]
    loss_fn = brain.hparams.compute_cost.loss_fn
    assert loss_fn.margin == 0.2 and loss_fn.cos_m == pytest.approx(np.cos(0.2)) and loss_fn.scale == 30


def test_the_best_and_the_latest_checkpoint_are_kept(rows, tmp_path, monkeypatch):
    eers = iter([0.4, 0.1, 0.3, 0.2])
    monkeypatch.setattr(SpeakerBrain, "dev_eer", lambda self, progressbar: next(eers))
    brain, fit = make(tmp_path, rows, epochs=4)
    fit()
    kept = {ckpt.meta["epoch"]: ckpt.meta["eer"] for ckpt in brain.checkpointer.list_checkpoints()}
    assert kept == {2: 0.1, 4: 0.2}
    log = read_train_log(tmp_path / "train_log.txt")
    assert [line["valid eer"] for line in log] == [40, 10, 30, 20]


@pytest.mark.parametrize("won", [True, False])
def test_the_average_of_the_last_epochs_is_one_more_checkpoint(rows, tmp_path, monkeypatch, won):
    eers = iter([0.4, 0.1, 0.3, 0.2, 0.05 if won else 0.15])
    monkeypatch.setattr(SpeakerBrain, "dev_eer", lambda self, progressbar=False: next(eers))
    brain, fit = make(tmp_path, rows, epochs=4, options={"average_checkpoints": 3})
    fit()
    found = brain.checkpointer.list_checkpoints()
    weights = {
        one.meta["epoch"]: torch.load(one.paramfiles["embedding_model"]) for one in found if "averaged" not in one.meta
    }
    (average,) = [one for one in found if "averaged" in one.meta]
    assert average.meta["averaged"] == 3 and weights.keys() >= {2, 3, 4}
    for name, value in torch.load(average.paramfiles["embedding_model"]).items():
        expected = sum(weights[epoch][name] for epoch in (2, 3, 4)) / 3
        assert torch.allclose(value.float(), expected.float(), atol=1e-6)
    best = brain.checkpointer.find_checkpoint(min_key="eer")
    assert ("averaged" in best.meta) is won
    _, again = make(tmp_path, rows, epochs=4, options={"average_checkpoints": 3})
    again()  # nothing is left to do
    assert len(brain.checkpointer.list_checkpoints()) == len(found)


def test_a_share_of_the_initial_weights_is_kept(rows, tmp_path, monkeypatch):
    eers = iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(SpeakerBrain, "dev_eer", lambda self, progressbar=False: next(eers))
    brain, fit = make(tmp_path, rows, options={"init_weight": 0.25})
    start, ended, save = weights(brain), [], brain.checkpointer.save_and_keep_only

    def keep(**options):
        ended.append(weights(brain))
        save(**options)

    monkeypatch.setattr(brain.checkpointer, "save_and_keep_only", keep)
    fit()
    (mixed,) = brain.checkpointer.list_checkpoints()
    assert (mixed.meta["epoch"], mixed.meta["init_weight"], mixed.meta["eer"]) == (2, 0.25, 0.2)
    best, last = ended
    for name, value in torch.load(mixed.paramfiles["embedding_model"]).items():
        key = f"embedding_model.{name}"
        expected = 0.25 * start[key] + 0.75 * best[key] if value.is_floating_point() else best[key]
        assert torch.allclose(value, expected, atol=1e-7), name
    name = "embedding_model.embedding.weight"
    assert not torch.allclose(best[name], start[name], atol=1e-4)
    assert not torch.allclose(best[name], last[name], atol=1e-5)
    _, again = make(tmp_path, rows, options={"init_weight": 0.25})
    again()  # nothing is left to do
    assert [one.path for one in brain.checkpointer.list_checkpoints()] == [mixed.path]


def test_corpora_count_alike_in_the_dev_eer(rows, tmp_path):
    brain, fit = make(tmp_path, rows, epochs=1)
    fit()
    trials = brain.dev_set[1]
    vectors = np.array([[1.0, 0], [0, 1], [1, 0.1], [1, 0], [0.1, 1], [0, 1]])
    brain.embed_dev = lambda progressbar: vectors
    # Rows 0 to 2 (corpus 0) have trials at 0.99 and 0.1; rows 3 to 5 (corpus 1) too, the wrong way round.
    pairs = np.array([(0, 2), (0, 1), (3, 4), (4, 5)])
    target = np.array([True, False, True, False])
    rows_of = brain.dev_set[0]
    for corpora, eer in (([0] * 3 + [1] * 3, 0.5), ([0] * 6, 0.5), ([0] * 3 + [1] * 2 + [2], 0.0)):
        listed = Trials(trials.ids, enrol=pairs[:, 0], test=pairs[:, 1], target=target)
        brain.dev_set = rows_of, listed, corpora
        assert brain.dev_eer() == pytest.approx(eer)


def test_dev_trials_are_scored_at_intervals_and_at_the_end(rows, tmp_path):
    _, fit = make(tmp_path, rows, epochs=3, options={"valid_interval": 2})
    fit()
    assert ["valid eer" in line for line in read_train_log(tmp_path / "train_log.txt")] == [False, True, True]


def test_dev_eer_is_that_of_the_embeddings(rows, tmp_path):
    brain, fit = make(tmp_path, rows, epochs=1)
    fit()
    found = brain.dev_eer()
    names = list(rows)[:6]
    embeddings = []
    brain.modules.eval()
    for name in names:
        wave = torch.from_numpy(soundfile.read(rows[name]["wav"], dtype="float32")[0]).unsqueeze(0)
        features = brain.modules.mean_var_norm(brain.modules.compute_features(wave), torch.ones(1))
        embeddings.append(brain.modules.embedding_model(features).flatten())
    cosine = nn.functional.cosine_similarity
    scores = [cosine(embeddings[a], embeddings[b], 0).item() for a, b in ((0, 3), (1, 4), (0, 1), (1, 2))]
    misses = [sum(s < t for s in scores[:2]) / 2 for t in sorted(scores)]
    alarms = [sum(s >= t for s in scores[2:]) / 2 for t in sorted(scores)]
    crossing = min(zip(misses, alarms, strict=True), key=lambda pair: abs(pair[0] - pair[1]))
    assert found == pytest.approx(sum(crossing) / 2, abs=0.26)


def test_training_learns(rows, tmp_path):
    options = {"margin_start_epoch": 99, "margin_end_epoch": 99, "lr": 3e-3}
    _, fit = make(tmp_path, rows, epochs=12, options=options, batch_size=12)
    fit()
    losses = [line["train loss"] for line in read_train_log(tmp_path / "train_log.txt")]
    assert losses[-1] < 0.6 * losses[0]


class Poisoned(Recording):
    """Gives a loss that is not a number at some steps."""

    poison = ()

    def compute_losses(self, predictions, batch):
        losses = super().compute_losses(predictions, batch)
        if self.step in self.poison:
            losses["speaker_loss"] = (1.0, losses["speaker_loss"][1] * float("nan"))
        return losses


def test_a_batch_with_a_bad_loss_is_skipped(rows, tmp_path):
    brain, fit = make(tmp_path, rows, Poisoned, epochs=1)
    brain.poison = (2,)
    fit()
    assert all(torch.isfinite(value).all() for value in weights(brain).values())
    assert np.isfinite(read_train_log(tmp_path / "train_log.txt")[0]["train loss"])


def test_too_many_bad_losses_stop_with_advice(rows, tmp_path):
    brain, fit = make(tmp_path, rows, Poisoned, epochs=1, run_opts={"nonfinite_patience": 1})
    brain.poison = (2, 3)
    with pytest.raises(ValueError, match="step 3.*lower lr"):
        fit()


def test_too_little_data_is_said(rows, tmp_path):
    few = dict(list(rows.items())[:2])
    _, fit = make(tmp_path, few)
    with pytest.raises((ValueError, IndexError), match="batch_size"):
        fit()


def distillation(kd_weight=1.0, embedding_weight=None, pairs=None):
    """Options of a distillation of attention maps and embeddings."""
    return {
        "distillation_losses": {
            "attention_loss": {
                "compares": "attention_maps",
                "weight": kd_weight,
                "loss": AttentionMapLoss(pairs),
            },
            "embedding_loss": {
                "compares": "embeddings",
                "weight": embedding_weight,
                "loss": EmbeddingDistillationLoss(16, 24),
            },
        },
        "modules": {},
    }


class Spy(nn.Module):
    """Wraps a model and records its inputs."""

    def __init__(self, model):
        super().__init__()
        self.model, self.depths, self.shown = model, model.depths, []

    def forward_with_attention(self, features, lengths=None):
        self.shown.append((features.clone(), lengths.clone()))
        return self.model.forward_with_attention(features, lengths)


def test_student_and_teacher_see_the_same_and_the_teacher_stays(rows, tmp_path):
    teacher, student = Spy(bccmt_small(embedding_size=24)), Spy(bccmt_tiny(embedding_size=16))
    options = distillation(embedding_weight=0.5)
    options["modules"] |= {"embedding_model": student, "spec_augment": SpecAugment(2, 8, 2, 8)}
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    brain, fit = make(
        tmp_path, rows, DistillationBrain, epochs=1, options=options, teacher=FrozenTeacher(teacher)
    )
    brain.dev_eer = lambda progressbar: 0.5
    fit()
    assert len(student.shown) == len(teacher.shown) == 5  # four batches after the check of the maps
    for (one, lengths), (two, teacher_lengths) in zip(student.shown, teacher.shown, strict=True):
        assert torch.equal(one, two) and torch.equal(lengths, teacher_lengths)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    line = read_train_log(tmp_path / "train_log.txt")[0]
    parts = line["train speaker_loss"] + line["train attention_loss"] + 0.5 * line["train embedding_loss"]
    assert line["train loss"] == pytest.approx(parts, rel=1e-2)


def test_distillation_brings_the_maps_closer(rows, tmp_path):
    def final(weight):
        _, fit = make(
            tmp_path / str(weight),
            rows,
            DistillationBrain,
            epochs=30,
            batch_size=12,
            options=distillation(weight) | {"lr": 0.03, "valid_interval": 99},
            teacher=FrozenTeacher(Toy(embedding_size=24)),
        )
        fit()
        return read_train_log(tmp_path / str(weight) / "train_log.txt")[-1]["train attention_loss"]

    assert final(1.0) < 0.5 * final(0.0)


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (bccmt_tiny, {"pairs": [(0, 0)]}, "does not match"),
        (
            partial(bccmt_tiny, n_mels=40, subbands=1),
            {"pairs": [(0, 0)]},
            "does not take the student's features",
        ),
        (Toy, {"pairs": [(0, 50)]}, "out of range"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_the_first_batch(
    rows, tmp_path, teacher, options, message
):
    with pytest.raises(ValueError, match=message):
        make(
            tmp_path,
            rows,
            DistillationBrain,
            options=distillation(**options),
            teacher=FrozenTeacher(teacher()),
        )


def test_a_student_without_maps_is_refused(rows, tmp_path):
    options = distillation()
    options["modules"]["embedding_model"] = nn.Linear(80, 16)
    with pytest.raises(ValueError, match="no attention maps"):
        make(tmp_path, rows, DistillationBrain, options=options, teacher=FrozenTeacher(bccmt_tiny()))


def token_embedder(readout="class+distillation", **options):
    small = {
        "channels": 16,
        "blocks": 1,
        "heads": 2,
        "memory_keys": 8,
        "memory_top_k": 4,
        "embedding_size": 16,
    }
    return TokenEmbedder(readout, **small, front_channels=(8, 8), **options)


def token_distillation(student=None, classes=3, weight=0.5, **modules):
    """Options of a distillation of predictions alone."""
    loss = TokenDistillationLoss(2, teacher_scale=30, student_scale=30)
    return {
        "distillation_losses": {"token_loss": {"compares": "predictions", "weight": weight, "loss": loss}},
        "modules": {
            "embedding_model": token_embedder() if student is None else student,
            "distillation_classifier": Classifier(16, out_neurons=classes),
            **modules,
        },
    }


def frozen_toy():
    return FrozenTeacher(Toy(), Classifier(16, out_neurons=3))


def test_the_class_token_learns_the_label_and_the_distillation_token_the_teacher(rows, tmp_path):
    teacher = frozen_toy()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    brain, fit = make(
        tmp_path, rows, DistillationBrain, options=token_distillation(), teacher=teacher, batch_size=12
    )
    fit()
    line = read_train_log(tmp_path / "train_log.txt")[-1]
    parts = line["train speaker_loss"] + 0.5 * line["train token_loss"]
    assert line["train loss"] == pytest.approx(parts, rel=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    kept = brain.checkpointer.find_checkpoint().paramfiles
    assert "distillation_classifier" in kept and "teacher" not in kept

    # Each loss has its own token: the label loss has no gradient in the distillation token's layers.
    brain.modules.train()
    batch = next(iter(brain.make_dataloader(brain.training_set, Stage.TRAIN, batch_size=12)))
    student = brain.modules.embedding_model
    of_class, of_distillation = (layer.weight for layer in student.embedding_layers)
    losses = brain.compute_losses(brain.compute_forward(batch, Stage.TRAIN), batch)
    for name, moved, still in (
        ("speaker_loss", of_class, of_distillation),
        ("token_loss", of_distillation, of_class),
    ):
        gradients = torch.autograd.grad(losses[name][1], (moved, still), retain_graph=True, allow_unused=True)
        assert gradients[0].abs().sum() > 0 and gradients[1] is None
    sum(weight * value for weight, value in losses.values()).backward()
    assert all(p.grad is not None for name, p in brain.modules.named_parameters() if "spec" not in name)


def test_distillation_brings_the_predictions_closer(rows, tmp_path):
    def final(weight):
        options = token_distillation(weight=weight) | {"lr": 0.01, "valid_interval": 99}
        _, fit = make(
            tmp_path / str(weight),
            rows,
            DistillationBrain,
            epochs=15,
            batch_size=12,
            options=options,
            teacher=frozen_toy(),
        )
        fit()
        return read_train_log(tmp_path / str(weight) / "train_log.txt")[-1]["train token_loss"]

    assert final(1.0) < 0.5 * final(0.0)


def test_a_teacher_trained_alongside_learns_the_labels_alone(rows, tmp_path):
    def states(token_weight):
        torch.manual_seed(0)
        teacher = LearningTeacher(Toy(), Classifier(16, out_neurons=3))
        before = {name: value.clone() for name, value in teacher.named_parameters()}
        options = token_distillation(weight=token_weight)
        brain, fit = make(
            tmp_path / str(token_weight),
            rows,
            DistillationBrain,
            options=options,
            teacher=teacher,
            batch_size=12,
            run_opts={"max_grad_norm": 1e9},  # student and teacher are clipped together
        )
        fit()
        assert "teacher" in brain.checkpointer.find_checkpoint().paramfiles
        # A constant in all keys has no gradient but rounding, which Adam makes steps of.
        after = {name: value for name, value in teacher.named_parameters() if name != "model.key.bias"}
        assert all(not torch.equal(value, before[name]) for name, value in after.items())
        return after

    alone, watched = states(0.0), states(5.0)
    # What the student makes of it has no influence on the teacher.
    assert all(torch.allclose(value, watched[name], atol=1e-6) for name, value in alone.items())
    line = read_train_log(tmp_path / "5.0" / "train_log.txt")[-1]
    parts = line["train speaker_loss"] + line["train teacher_loss"] + 5 * line["train token_loss"]
    assert line["train loss"] == pytest.approx(parts, rel=1e-2)


def test_erasing_can_be_the_students_alone(rows, tmp_path):
    teacher, student = Spy(Toy()), Spy(Toy())
    options = distillation()
    options["modules"] |= {"embedding_model": student, "student_erasing": SpecAugment(4, 20, 4, 20)}
    brain, fit = make(
        tmp_path, rows, DistillationBrain, epochs=1, options=options, teacher=FrozenTeacher(teacher)
    )
    brain.dev_eer = lambda progressbar: 0.5
    fit()
    erased = 0
    for (one, _), (two, _) in zip(student.shown[1:], teacher.shown[1:], strict=True):
        differs = one != two
        assert (one[differs] == 0).all()
        erased += differs.sum().item()
    assert erased > 0


def test_maps_and_predictions_can_be_imitated_at_once(rows, tmp_path):
    options = token_distillation()
    maps = {"compares": "attention_maps", "weight": 1.0, "loss": AttentionMapLoss()}
    options["distillation_losses"] = {"attention_loss": maps, **options["distillation_losses"]}
    teacher = FrozenTeacher(token_embedder(), Classifier(16, out_neurons=3))
    _, fit = make(
        tmp_path, rows, DistillationBrain, epochs=1, options=options, teacher=teacher, batch_size=12
    )
    fit()
    line = read_train_log(tmp_path / "train_log.txt")[0]
    parts = line["train speaker_loss"] + line["train attention_loss"] + 0.5 * line["train token_loss"]
    assert line["train attention_loss"] > 0 and line["train loss"] == pytest.approx(parts, rel=1e-2)


def test_any_sum_of_losses_can_be_given(rows, tmp_path):
    def entry(weight):
        return {"compares": "embeddings", "weight": weight, "loss": EmbeddingDistillationLoss(16, 24)}

    losses = {
        "one_loss": entry(2.0),
        "other_loss": entry(0.25),
        "watched_loss": entry(0.0),
        "unused_loss": entry(None),
    }
    teacher = FrozenTeacher(Toy(embedding_size=24))
    options = {"distillation_losses": losses}
    brain, fit = make(tmp_path, rows, DistillationBrain, epochs=1, options=options, teacher=teacher)
    fit()
    line = read_train_log(tmp_path / "train_log.txt")[0]
    parts = line["train speaker_loss"] + 2 * line["train one_loss"] + 0.25 * line["train other_loss"]
    assert line["train loss"] == pytest.approx(parts, rel=1e-2)
    assert line["train watched_loss"] > 0 and "train unused_loss" not in line
    kept = brain.checkpointer.find_checkpoint().paramfiles
    assert {"one_loss", "other_loss", "watched_loss"} <= kept.keys() and "unused_loss" not in kept


def unknown_output():
    options = distillation()
    options["distillation_losses"]["attention_loss"]["compares"] = "dreams"
    return options


def without(options, module):
    del options["modules"][module]
    return options


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (lambda: FrozenTeacher(Toy()), token_distillation, "no classifier"),
        (lambda: LearningTeacher(Toy()), distillation, "no classifier"),
        (frozen_toy, partial(token_distillation, classes=4), "same classes"),
        (frozen_toy, lambda: token_distillation(student=Toy()), "no distillation token"),
        (frozen_toy, lambda: token_distillation(student=token_embedder("class")), "class\\+distillation"),
        (frozen_toy, lambda: without(token_distillation(), "distillation_classifier"), "lack distillation_c"),
        (frozen_toy, dict, "nothing to imitate"),
        (frozen_toy, partial(distillation, kd_weight=None), "nothing to imitate"),
        (frozen_toy, unknown_output, "attention_loss compares 'dreams'"),
    ],
)
def test_a_distillation_of_predictions_that_cannot_be_is_refused(rows, tmp_path, teacher, options, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, rows, DistillationBrain, options=options(), teacher=teacher())


def test_bfloat16(rows, tmp_path):
    brain, fit = make(tmp_path, rows, epochs=1, run_opts={"precision": "bf16"})
    fit()
    assert np.isfinite(read_train_log(tmp_path / "train_log.txt")[0]["train loss"])
