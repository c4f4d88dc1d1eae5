"""Two processes train as one: gradients, crops, dev trials, logs, checkpoints."""

import os
from functools import partial

import numpy as np
import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from torch import nn

from speechbrain_bccmt.lobes.bccmt import bccmt_tiny
from speechbrain_bccmt.losses import BankDistillationLoss
from speechbrain_bccmt.training.curves import read_train_log
from speechbrain_bccmt.training.distillation_brain import DistillationBrain
from speechbrain_bccmt.training.distributed import AllReduceBatchNorm, plain
from speechbrain_bccmt.training.speaker_brain import SpeakerBrain
from speechbrain_bccmt.training.targets import StoredTargets
from speechbrain_bccmt.training.teachers import FrozenTeacher, LearningTeacher
from speechbrain_bccmt.trials.read import Trials
from tests.training.test_brain import Toy, distillation, frozen_toy, make, token_distillation
from tests.training.two_processes import in_two_processes

KINDS = ("labels", "unlabelled", "maps and embeddings", "targets", "tokens", "teacher alongside")


def noting(brain_class):
    """Return a brain that notes gradients, utterances and rates."""

    class Noting(brain_class):
        kill_at = None

        def optimizers_step(self):
            self.gradients = [
                *getattr(self, "gradients", []),
                [parameter.grad.clone() for parameter in self.modules.parameters()],
            ]
            super().optimizers_step()

        def on_fit_batch_end(self, batch, outputs, loss, should_step):
            super().on_fit_batch_end(batch, outputs, loss, should_step)
            self.seen = [*getattr(self, "seen", []), (self.epoch, tuple(batch.id), self.lr, self.margin)]
            if self.optimizer_step == self.kill_at:
                raise KeyboardInterrupt

    return Noting


def build(folder, rows, kind, batch_size, run_opts=None, epochs=2):
    hparams, brain_class, brain = {"lr": 1e-3}, DistillationBrain, {}
    if kind == "labels":
        brain_class, hparams["modules"] = SpeakerBrain, {"embedding_model": bccmt_tiny(embedding_size=16)}
    elif kind == "unlabelled":
        brain_class = SpeakerBrain
        rows = {
            name: row | ({"spk_id": ""} if index in (1, 2, 5, 7, 8) else {})
            for index, (name, row) in enumerate(rows.items())
        }
    elif kind == "maps and embeddings":
        hparams |= distillation(embedding_weight=0.5)
        brain["teacher"] = FrozenTeacher(Toy(embedding_size=24))
    elif kind == "targets":
        vectors = np.random.default_rng(0).normal(size=(len(rows), 16)).astype(np.float32)
        path = folder.parent / f"targets{os.environ.get('RANK')}.npz"
        np.savez(path, ids=list(rows), embeddings=vectors)
        entry = {"compares": "targets", "weight": 0.5, "loss": BankDistillationLoss}
        hparams["distillation_losses"] = {"bank_loss": entry}
        brain |= {"teacher": None, "targets": StoredTargets(path)}
    else:
        hparams |= token_distillation()
        brain["teacher"] = frozen_toy()
        if kind == "teacher alongside":
            brain["teacher"] = LearningTeacher(Toy(), Classifier(16, out_neurons=3))
    torch.manual_seed(1)
    return make(
        folder,
        rows,
        noting(brain_class),
        epochs=epochs,
        batch_size=batch_size,
        options=hparams,
        opt_class=torch.optim.SGD,
        run_opts={"distributed_backend": "gloo", **(run_opts or {})},
        **brain,
    )


def train(folder, rows, kind, batch_size, kill_at=None, **options):
    torch.manual_seed(0)
    brain, fit = build(folder, rows, kind, batch_size, **options)
    brain.kill_at = kill_at
    try:
        fit()
    except KeyboardInterrupt:
        return None
    return {
        "gradients": brain.gradients,
        "seen": brain.seen,
        "eer": brain.dev_eer(),
        "weights": [plain(module).state_dict() for module in brain.modules.values()],
        "lines": (folder / "train_log.txt").read_text().count("\n"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(rows, tmp_path, kind):
    one = train(tmp_path / "one", rows, kind, 6)
    two = in_two_processes(train, tmp_path / "two", rows, kind, 3)
    assert len(one["gradients"]) == 4
    for other in two:
        for step, (expected, found) in enumerate(zip(one["gradients"], other["gradients"], strict=True)):
            largest = max(gradient.abs().max() for gradient in expected)
            for left, right in zip(expected, found, strict=True):
                assert (left - right).abs().max() < 1e-5 * largest, step
        for left, right in zip(one["weights"], other["weights"], strict=True):
            assert left.keys() == right.keys()
            assert all(torch.allclose(left[name], right[name], atol=1e-5) for name in left)
        assert other["eer"] == one["eer"]
    # An epoch shows each utterance to one process, in the batches of one.
    for step, (_, batch, *schedules) in enumerate(one["seen"]):
        mine, yours = two[0]["seen"][step], two[1]["seen"][step]
        assert set(mine[1]).isdisjoint(yours[1]) and set(mine[1] + yours[1]) == set(batch)
        assert [*mine[2:]] == [*yours[2:]] == schedules
    logs = [read_train_log(tmp_path / name / "train_log.txt") for name in ("one", "two")]
    assert two[0]["lines"] == one["lines"] == 2
    for left, right in zip(*logs, strict=True):
        assert left == pytest.approx(right | {"train seconds": left["train seconds"]}, rel=2e-3)
    assert len(list((tmp_path / "two" / "save").glob("CKPT*"))) == 1


def normalised(batches):
    torch.manual_seed(0)
    norm, rank = nn.BatchNorm2d(4), torch.distributed.get_rank()
    layer = AllReduceBatchNorm(norm)
    x = batches[rank].clone().requires_grad_()
    y = layer(x)
    (y**3).sum().backward()
    return y.detach(), x.grad, layer.weight.grad, layer.state_dict()


def test_batch_norm_of_all_processes_is_that_of_one():
    torch.manual_seed(0)
    x = 100 + torch.randn(7, 4, 5, 3)  # a mean far from zero, and batches of different sizes
    norm = nn.BatchNorm2d(4)
    whole = x.clone().requires_grad_()
    y = norm(whole)
    (y**3).sum().backward()
    parts = in_two_processes(normalised, (x[:5], x[5:]))
    for index, wanted in ((0, y.detach()), (1, whole.grad)):
        assert torch.allclose(torch.cat([part[index] for part in parts]), wanted, atol=1e-4)
    assert torch.allclose(parts[0][2] + parts[1][2], norm.weight.grad, rtol=1e-4)
    for part in parts:
        assert part[3].keys() == norm.state_dict().keys()
        assert all(
            torch.allclose(part[3][name].float(), value.float()) for name, value in norm.state_dict().items()
        )


@pytest.mark.parametrize("before", (1, 2))
def test_a_training_resumes_with_another_number_of_processes(rows, tmp_path, before):
    options = {"run_opts": {"ckpt_interval_steps": 1}}
    whole = train(tmp_path / "whole", rows, "maps and embeddings", 2)["seen"]
    runs = {
        1: lambda **more: (train(tmp_path / "cut", rows, "maps and embeddings", 2, **options, **more),),
        2: lambda **more: in_two_processes(
            partial(train, **options, **more), tmp_path / "cut", rows, "maps and embeddings", 2
        ),
    }
    # The last checkpoint is after four utterances of the second epoch.
    runs[before](kill_at={1: 9, 2: 5}[before])
    resumed = [run["seen"] for run in runs[3 - before]()]
    rest = [set(batch) for epoch, batch, *_ in whole if epoch == 2][2:]
    if before == 2:
        assert [set(batch) for _, batch, *_ in resumed[0]] == rest
        assert [rates for *_, rates, _ in resumed[0]] == pytest.approx([rates for *_, rates, _ in whole[8:]])
    else:
        steps = [set(mine[1] + yours[1]) for mine, yours in zip(*resumed, strict=True)]
        assert steps == [rest[0] | rest[1], rest[2] | rest[3]]
        assert [entry[2] for entry in resumed[0]] == pytest.approx([whole[8][2], whole[10][2]], rel=0.3)
    assert [line["epoch"] for line in read_train_log(tmp_path / "cut" / "train_log.txt")] == [1, 2]


def poisoned(folder, rows):
    brain, fit = build(folder, rows, "maps and embeddings", 3)
    compute = brain.compute_losses

    def compute_losses(predictions, batch):
        losses = compute(predictions, batch)
        if brain.step == 2 and torch.distributed.get_rank() == 1:
            losses["speaker_loss"] = (1.0, losses["speaker_loss"][1] * float("nan"))
        return losses

    brain.compute_losses = compute_losses
    fit()
    return brain.nonfinite_count, [plain(module).state_dict() for module in brain.modules.values()]


def test_a_bad_loss_of_one_process_is_skipped_by_all(rows, tmp_path):
    (mine, weights), (yours, others) = in_two_processes(poisoned, tmp_path, rows)
    assert mine == yours == 1
    for left, right in zip(weights, others, strict=True):
        assert all(torch.isfinite(left[name]).all() and torch.equal(left[name], right[name]) for name in left)
    assert all(np.isfinite(line["train loss"]) for line in read_train_log(tmp_path / "train_log.txt"))


def lonely_eer(folder, rows):
    brain, fit = build(folder, rows, "labels", 3, epochs=1)
    fit()
    dev, trials, _ = brain.dev_set
    same = np.zeros(2, int)
    brain.dev_set = dev[:1], Trials(trials.ids[:1], enrol=same, test=same, target=np.array([True, False])), [0]
    return brain.dev_eer()


def test_a_dev_set_smaller_than_the_processes_is_scored(rows, tmp_path):
    assert in_two_processes(lonely_eer, tmp_path, rows) == (0.5, 0.5)
