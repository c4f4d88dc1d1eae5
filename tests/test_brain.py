"""The training loops: schedules, checkpoints, resuming, bad losses, and what the teacher sees."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from torch import nn

from speechbrain_bccmt.brain import DistillationBrain, SpeakerBrain
from speechbrain_bccmt.checkpoints import AtomicCheckpointer
from speechbrain_bccmt.curves import read_train_log
from speechbrain_bccmt.data.augmentation import SpecAugment
from speechbrain_bccmt.data.crops import TrainingCrops
from speechbrain_bccmt.data.trials import Trials
from speechbrain_bccmt.lobes.bccmt import bccmt_small, bccmt_tiny
from speechbrain_bccmt.losses import AttentionMapLoss, EmbeddingDistillationLoss
from speechbrain_bccmt.teachers import FrozenTeacher


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Twelve utterances of three speakers, told apart by their spectrum."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    rows = {}
    for index in range(12):
        noise = rng.standard_normal(9600)
        wave = np.convolve(noise, np.cos(np.arange(40) * (0.3 + 0.5 * (index % 3))), "same")
        path = folder / f"{index}.wav"
        soundfile.write(path, 0.1 * wave / wave.std(), 16000)
        rows[f"s{index % 3}/v/{index}"] = {
            "wav": str(path),
            "start": "0",
            "stop": "9600",
            "spk_id": f"s{index % 3}",
            "sample_rate": "16000",
            "duration": 0.6,
        }
    return rows


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
    folder, rows, brain_class=SpeakerBrain, epochs=2, options=None, run_opts=None, batch_size=3, **brain
):
    """Give a brain and the arguments of its fit."""
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
        opt_class=partial(torch.optim.AdamW, lr=1e-3),
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
    return brain, partial(brain.fit, counter, crops, (dev, trials), train_loader_kwargs=loader)


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


def distillation(kd_weight=1.0, embedding_weight=0.0, pairs=None):
    return {
        "kd_weight": kd_weight,
        "embedding_weight": embedding_weight,
        "attention_loss": AttentionMapLoss(pairs),
        "modules": {"embedding_loss": EmbeddingDistillationLoss(16, 24)},
    }


class Spy(nn.Module):
    """Passes on to a model and keeps what it was shown."""

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


def test_bfloat16(rows, tmp_path):
    brain, fit = make(tmp_path, rows, epochs=1, run_opts={"precision": "bf16"})
    fit()
    assert np.isfinite(read_train_log(tmp_path / "train_log.txt")[0]["train loss"])
