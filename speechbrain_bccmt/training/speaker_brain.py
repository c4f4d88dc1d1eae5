"""The training loop of speaker classification."""

from __future__ import annotations

import os
import time
import zlib

import numpy as np
import speechbrain as sb
import torch
import yaml
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.nnet.losses import AdditiveAngularMargin
from speechbrain.utils.checkpoints import (
    average_checkpoints,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_all_reduce
from speechbrain.utils.logger import get_logger
from torch.distributed import ReduceOp
from torch.utils.data import DataLoader

from speechbrain_bccmt.inference.embedding import embed_utterances
from speechbrain_bccmt.scoring import cosine_scores, equal_error_rate
from speechbrain_bccmt.training.crops import UNLABELLED
from speechbrain_bccmt.training.distributed import (
    Callee,
    gather,
    plain,
    process_count,
    process_index,
    share_batch_statistics,
)
from speechbrain_bccmt.training.schedules import linear_margin, warmup_cosine

logger = get_logger(__name__)

# What the step count of a checkpoint depends on.
EPOCH_UNITS = ("batch_utterances", "steps_per_epoch", "grad_accumulation_factor")


@register_checkpoint_hooks
class SpeakerBrain(sb.core.Brain):
    """Trains an encoder to classify the training speakers, and evaluates it by the EER on held-out speakers.

    Modules: `compute_features`, `mean_var_norm`, `spec_augment`, `embedding_model`, `classifier`.
    Hyperparameters: `compute_cost` (`LogSoftmaxWrapper` over `AdditiveAngularMargin`, with the final
    margin), `margin_start_epoch`, `margin_end_epoch`, `lr`, `lr_final`, `warmup_epochs`, `valid_interval`,
    `train_logger` and optionally `tensorboard_logger`.

    The learning rate follows `warmup_cosine` per optimiser step, the margin `linear_margin`. A checkpoint is written at
    the end of each epoch; the one with the lowest dev EER and the latest are kept, with `average_checkpoints` that many
    of each, and at the end the average of the latest is saved as one more. With `init_weight`, only one checkpoint is
    kept at the end, whose encoder has that share of the initial weights and the rest of the best ones (Wortsman et al.,
    CVPR 2022, arXiv 2109.01903). Resuming starts at the step of the last checkpoint (run options `ckpt_interval_steps`
    and `ckpt_interval_minutes`).

    Under torchrun, `batch_size` is that of each process: two processes with batches of 32 train like one with batches
    of 64, with the batch statistics of all 64. Training may be resumed with another number of processes or another
    batch size; it then repeats less than one batch of the epoch.
    """

    def fit(self, epoch_counter, train_set, valid_set=None, progressbar=None, train_loader_kwargs=None):
        """Train, as `speechbrain.core.Brain.fit` does.

        Parameters
        ----------
        epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
            Counts the epochs and ends the training.
        train_set : TrainingCrops or DataLoader
            Training data.
        valid_set : tuple, optional
            Rows of the dev utterances (see `embed_utterances`), their `Trials`, and the corpus of each row.
        progressbar, train_loader_kwargs : optional
            As in SpeechBrain.

        Raises
        ------
        ValueError
            If the training set has fewer utterances than a batch.
        """
        self.training_set = getattr(train_set, "dataset", train_set)
        self.dev_set = valid_set
        if not isinstance(train_set, DataLoader):
            options = dict(train_loader_kwargs or {})
            if self.distributed_launch and options.get("shuffle"):
                # SpeechBrain's own sampler for one process; it deals this order out to all.
                seed = os.environ.get("SB_GLOBAL_SEED", 563375142)
                options["sampler"] = ReproducibleRandomSampler(train_set, seed=seed)
                options["shuffle"] = False
            train_set = self.make_dataloader(train_set, sb.Stage.TRAIN, **options)
        if len(train_set) == 0:
            raise ValueError(
                f"{len(self.training_set)} training utterances give no batch of {train_set.batch_size}: "
                "use a smaller batch_size or more data"
            )
        self.train_loader = train_set
        self.sampler = train_set.sampler
        # Over all processes; if batches differ in size, the batches themselves are counted.
        self.batch_utterances = (train_set.batch_size or 1) * process_count()
        self.steps_per_epoch = max(1, len(train_set) // self.grad_accumulation_factor)
        self.last_epoch = epoch_counter.limit
        # Copied now, as a resumed training loads its last checkpoint.
        initial = {name: value.cpu().clone() for name, value in self.modules.embedding_model.state_dict().items()}
        super().fit(epoch_counter, train_set, progressbar=progressbar)
        if self.averaged > 1 and self.checkpointer is not None:
            self._save_average()
        if self.init_weight and self.checkpointer is not None:
            self._mix_in(initial)

    @property
    def init_weight(self) -> float:
        """Share of the initial weights in the encoder that is kept."""
        return getattr(self.hparams, "init_weight", 0.0)

    @property
    def averaged(self) -> int:
        """Number of epochs whose weights are averaged at the end."""
        return getattr(self.hparams, "average_checkpoints", 0)

    def _save_average(self):
        """Average the encoder of the last epochs into one more checkpoint, which competes on dev EER."""
        found = self.checkpointer.list_checkpoints()
        ended = [one for one in found if "epoch" in one.meta]
        epochs = sorted(ended, key=lambda one: one.meta["epoch"])[-self.averaged :]
        if len(epochs) < 2 or any("averaged" in one.meta for one in found):
            return
        meta = {"epoch": epochs[-1].meta["epoch"], "averaged": len(epochs)}
        weights = average_checkpoints(epochs, "embedding_model")
        self._save_weights(weights, meta, f"the average of the last {len(epochs)} epochs")

    def _mix_in(self, initial: dict[str, torch.Tensor]):
        """Replace all checkpoints with one: the weighted mean of the best one's encoder and the initial one."""
        newest = self.checkpointer.find_checkpoint()
        if "init_weight" not in newest.meta:
            best = self.checkpointer.find_checkpoint(min_key="eer") or newest
            trained = average_checkpoints([best], "embedding_model")
            weights = {
                name: trained[name].lerp(value, self.init_weight) if value.is_floating_point() else trained[name]
                for name, value in initial.items()
            }
            meta = {"epoch": newest.meta["epoch"], "init_weight": self.init_weight}
            self._save_weights(weights, meta, f"with {self.init_weight:g} of the initial weights, the encoder")
        self.checkpointer.delete_checkpoints(num_to_keep=1)

    def _save_weights(self, weights: dict[str, torch.Tensor], meta: dict, name: str):
        """Save weights of the encoder as one more checkpoint, and log their dev EER."""
        plain(self.modules.embedding_model).load_state_dict(weights)
        if self.dev_set is not None:
            meta["eer"] = self.dev_eer()
            best = min(one.meta["eer"] for one in self.checkpointer.list_checkpoints() if "eer" in one.meta)
            logger.info(
                f"{name} has a dev EER of {100 * meta['eer']:.3f} %, the best checkpoint before {100 * best:.3f} %"
            )
        self.checkpointer.save_checkpoint(meta=meta)

    def extract_features(self, batch, stage):
        """Compute normalised features (batch, frames, mels) and relative lengths of a batch."""
        wavs, lengths = batch.sig
        crop_seconds = getattr(self.hparams, "crop_seconds", None)
        if stage == sb.Stage.TRAIN and isinstance(crop_seconds, list):
            # The same in all processes, so none waits for a longer one.
            draw = zlib.crc32(f"{self.training_set.seed}/{self.epoch}/{self.step}".encode())
            seconds = crop_seconds[draw % len(crop_seconds)]
            wavs = wavs[:, : round(seconds * self.hparams.sample_rate)]
        # Log energies need more digits than half precision has.
        with torch.autocast(self.device_type, enabled=False):
            features = self.modules.mean_var_norm(self.modules.compute_features(wavs), lengths)
            if stage == sb.Stage.TRAIN:
                features = self.modules.spec_augment(features)
        return features, lengths

    def classify(self, embeddings):
        """Compute the cosines (batch, 1, classes) of embeddings (batch, 1, size) and class centres."""
        with torch.autocast(self.device_type, enabled=False):
            return self.modules.classifier(embeddings.float())

    def compute_forward(self, batch, stage):
        """Embed and classify a batch."""
        batch = batch.to(self.device)
        features, lengths = self.extract_features(batch, stage)
        return {"cosines": self.classify(self.modules.embedding_model(features, lengths))}

    def compute_objectives(self, predictions, batch, stage):
        """Return the loss and remember its parts for the log."""
        losses = self.compute_losses(predictions, batch)
        self.loss_parts = {name: value.detach() for name, (_, value) in losses.items()}
        return sum(weight * value for weight, value in losses.values())

    def compute_losses(self, predictions, batch):
        """Return the parts of the loss by name, as pairs of weight and value."""
        weight = getattr(self.hparams, "speaker_weight", 1.0)
        return {"speaker_loss": (weight, self.speaker_loss(predictions["cosines"], batch))}

    def speaker_loss(self, cosines, batch):
        """Average the classification loss over the utterances whose speaker is known; 0 if none is.

        The mean over processes is the average over the utterances of all of them.
        """
        labels = batch.spk_id_encoded.data
        known = labels.flatten() != UNLABELLED
        if known.any():
            loss = self.hparams.compute_cost(cosines[known], labels[known])
        else:
            loss = 0 * cosines.sum()
        if process_count() == 1:
            return loss
        total = ddp_all_reduce(known.sum(), ReduceOp.SUM)
        return loss * known.sum() * process_count() / total.clamp(min=1)

    def on_fit_start(self):
        """Set up the optimiser and resume from the last checkpoint, which must be of the same experiment."""
        try:
            super().on_fit_start()
        except RuntimeError as error:
            if "state_dict" not in str(error):
                raise
            raise ValueError(
                f"the checkpoint in {self.checkpointer.checkpoints_dir} is of another model or other data: "
                f"{str(error).splitlines()[-1].strip()}; train into another output folder"
            ) from error
        self._fit_position()
        self.final_margin = self.hparams.compute_cost.loss_fn.margin
        if process_index():  # the same weights are loaded now, but each process masks its own features
            torch.manual_seed(torch.initial_seed() + process_index())

    def _wrap_distributed(self):
        if self.distributed_launch:
            for name, module in self.modules.items():
                if any(parameter.requires_grad for parameter in module.parameters()):
                    # SyncBatchNorm, which SpeechBrain uses, runs on GPUs only.
                    shared = share_batch_statistics(module) if self.device_type == "cpu" else module
                    self.modules[name] = Callee(shared)
        super()._wrap_distributed()

    @mark_as_saver
    def _save(self, path):
        super()._save(path)
        with open(path, "a", encoding="utf-8") as file:
            yaml.dump({name: getattr(self, name) for name in EPOCH_UNITS}, file)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        super()._recover(path, end_of_epoch)
        with open(path, encoding="utf-8") as file:
            self.units_before = yaml.safe_load(file)

    def _fit_position(self):
        """Convert the position of a checkpoint written with another number of processes, batch size or accumulation."""
        before = getattr(self, "units_before", {})
        now = {name: getattr(self, name) for name in EPOCH_UNITS}
        if not before.keys() >= now.keys() or all(before[name] == now[name] for name in now):
            return
        taken = self.optimizer_step - self.step // before["grad_accumulation_factor"]
        epochs = round(taken / before["steps_per_epoch"])
        self.step = self.step * before["batch_utterances"] // self.batch_utterances
        self.optimizer_step = epochs * self.steps_per_epoch + self.step // self.grad_accumulation_factor
        if getattr(self.train_loader, "_speechbrain_recovery_skip_to", None) is not None:
            self.train_loader._speechbrain_recovery_skip_to = self.step

    def on_stage_start(self, stage, epoch=None):
        """Select the epoch's crops and reset its statistics."""
        if stage == sb.Stage.TRAIN:
            self.epoch = epoch
            self.loss_sums, self.loss_count = {}, 0
            self.started = time.monotonic()
            for drawn in (self.training_set, self.sampler):
                if hasattr(drawn, "set_epoch"):
                    drawn.set_epoch(epoch)
            # Also here: an epoch resumed after its last step has no batch left.
            self._follow_schedules()

    def on_fit_batch_start(self, batch, should_step):
        """Set the learning rate and the margin of this step."""
        self._follow_schedules()

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Accumulate the parts of the loss for the log."""
        if not self.skip_nonfinite_grads:
            self.loss_count += 1
            for name, value in self.loss_parts.items():
                self.loss_sums[name] = self.loss_sums.get(name, 0) + value

    def _follow_schedules(self):
        step, per_epoch = self.optimizer_step, self.steps_per_epoch
        self.lr = warmup_cosine(
            step,
            self.last_epoch * per_epoch,
            round(self.hparams.warmup_epochs * per_epoch),
            self.hparams.lr,
            self.hparams.lr_final,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group.get("lr_factor", 1.0)
        self.margin = linear_margin(
            step / per_epoch,
            self.hparams.margin_start_epoch,
            self.hparams.margin_end_epoch,
            self.final_margin,
        )
        loss_fn = self.hparams.compute_cost.loss_fn
        if loss_fn.margin != self.margin:
            # Its sine and cosine are computed once, so a new margin needs a new object.
            self.hparams.compute_cost.loss_fn = AdditiveAngularMargin(
                self.margin, loss_fn.scale, loss_fn.easy_margin
            )

    def check_loss_isfinite(self, loss):
        """Skip the update of a batch whose loss is not finite; raise ValueError after `nonfinite_patience` of them.

        If it is not finite in one process, all skip the batch.
        """
        finite = not ddp_all_reduce((~torch.isfinite(loss)).float(), ReduceOp.SUM)
        # Gradients are then checked too and dropped: the weights stay as they are.
        self.skip_nonfinite_grads = not finite
        if not finite:
            self.nonfinite_count += 1
            where = f"loss {loss.item()} in epoch {self.epoch}, step {self.step}, learning rate {self.lr:.2e}"
            if self.nonfinite_count > self.nonfinite_patience:
                raise ValueError(
                    f"{where}: {self.nonfinite_count} batches of this epoch were not finite; use a lower lr, "
                    "a longer warmup_epochs or --precision fp32; started again, it resumes from the last "
                    "checkpoint"
                )
            logger.warning(f"{where}: batch skipped")

    def _fit_valid(self, valid_set, epoch, enable):
        # SpeechBrain's own stage classifies batches, but held-out speakers have no class: trials are scored instead.
        due = epoch % self.hparams.valid_interval == 0 or epoch == self.last_epoch
        eer = self.dev_eer(progressbar=enable) if self.dev_set is not None and due else None
        self.on_stage_end(sb.Stage.VALID, eer, epoch)

    @torch.no_grad()
    def embed_dev(self, progressbar=False) -> np.ndarray:
        """Embed the dev utterances whole: (N, D), in the order of `trials.ids`."""
        rows, trials, _ = self.dev_set
        self.modules.eval()
        own, part = rows[process_index() :: process_count()], ([], None)
        if own or not rows:
            with self.evaluation_ctx:
                part = embed_utterances(
                    own,
                    self.modules.compute_features,
                    self.modules.mean_var_norm,
                    plain(self.modules.embedding_model),
                    self.device,
                    progress=progressbar,
                )
        parts = [(ids, vectors) for ids, vectors in gather(part) if ids]
        ids = [utterance for ids, _ in parts for utterance in ids]
        position = {utterance: index for index, utterance in enumerate(ids)}
        embeddings = np.concatenate([vectors for _, vectors in parts])
        return embeddings[[position[utterance] for utterance in trials.ids]]

    def dev_eer(self, progressbar=False):
        """Compute the EER in [0, 1] of the dev trials, scored by the cosine of whole utterances.

        With several corpora, the mean of their EERs: each has its own threshold and counts equally.
        """
        (rows, trials, corpora), embeddings = self.dev_set, self.embed_dev(progressbar)
        scores = np.asarray(cosine_scores(embeddings, trials.enrol, trials.test, trials.models))
        corpus = {row["ID"]: number for row, number in zip(rows, corpora, strict=True)}
        tested = np.array([corpus[trials.ids[row]] for row in trials.test])
        parts = [tested == number for number in np.unique(tested)]
        sides = [(scores[part & trials.target], scores[part & ~trials.target]) for part in parts]
        # A corpus of one dev speaker has nobody to confuse it with.
        usable = [side for side in sides if all(map(len, side))] or [(scores[trials.target], scores[~trials.target])]
        return float(np.mean([equal_error_rate(*side)[0] for side in usable]))

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the epoch and write its checkpoint once the dev trials are scored."""
        if stage == sb.Stage.TRAIN:
            means = {"loss": float(stage_loss)}
            if len(self.loss_sums) > 1:
                means |= {name: float(total) / self.loss_count for name, total in self.loss_sums.items()}
            everyone = gather(means)
            means = {name: sum(part[name] for part in everyone) / len(everyone) for name in means}
            self.train_stats = means | {"seconds": time.monotonic() - self.started}
            return
        stats = {"epoch": epoch, "lr": self.lr, "margin": self.margin}
        valid_stats = None if stage_loss is None else {"eer": 100 * stage_loss}
        for train_logger in (self.hparams.train_logger, getattr(self.hparams, "tensorboard_logger", None)):
            if train_logger is not None:
                train_logger.log_stats(stats, train_stats=self.train_stats, valid_stats=valid_stats)
        if self.checkpointer is not None:
            # Explicit, as SpeechBrain appends to its default list of key functions at each call.
            self.checkpointer.save_and_keep_only(
                meta={"epoch": epoch} | ({} if stage_loss is None else {"eer": stage_loss}),
                num_to_keep=max(1, self.averaged),
                min_keys=["eer"],
                importance_keys=[],
            )
