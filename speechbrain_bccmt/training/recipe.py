"""The steps that the training recipes share: command line, data, brain, curves.

A recipe supplies the preparation of its corpus; its YAML holds everything else (see `hparams/`).
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.dataio.sampler import ReproducibleWeightedRandomSampler
from speechbrain.utils.distributed import (
    ddp_init_group,
    if_main_process,
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger
from speechbrain.utils.train_logger import TensorboardLogger
from torch.utils.data import Sampler

from speechbrain_bccmt.corpora.layout import folder_of
from speechbrain_bccmt.corpora.preparation import Preparation, prepare_from_hparams
from speechbrain_bccmt.hparams import load_hparams
from speechbrain_bccmt.inference.parameters import load_parameters, read_labels
from speechbrain_bccmt.training.crops import TrainingCrops
from speechbrain_bccmt.training.curves import plot_training_curves
from speechbrain_bccmt.training.distillation_brain import DistillationBrain
from speechbrain_bccmt.training.distributed import process_count
from speechbrain_bccmt.training.shards import ShardOrder, place_in_shards
from speechbrain_bccmt.training.speaker_brain import SpeakerBrain
from speechbrain_bccmt.training.targets import StoredTargets
from speechbrain_bccmt.training.teachers import LearningTeacher, load_teacher
from speechbrain_bccmt.training.voice_phrase_brain import PhraseClasses, VoicePhraseBrain
from speechbrain_bccmt.trials.read import Trials, read_trials

logger = get_logger(__name__)

# Zero would fail late, or after an epoch.
POSITIVE = ("number_of_epochs", "batch_size", "crop_seconds", "valid_interval")


def build_training_set(hparams: dict) -> TrainingCrops:
    """Return the training crops, whose number of classes comes from the data."""
    label_encoder_file = Path(hparams["save_folder"]) / "label_encoder.txt"
    crop_seconds = hparams["crop_seconds"]
    data = load_data_csv(Path(hparams["save_folder"]) / "train.csv")
    if hparams.get("shards_folder"):
        place_in_shards(data, hparams["shards_folder"])
    labels = _labels_to_keep(hparams, {row["spk_id"] for row in data.values()} - {""})
    if labels is not None:
        run_on_main(labels.save, [label_encoder_file])
    return TrainingCrops(
        data,
        label_encoder_file=label_encoder_file,
        # With several lengths, the brain cuts each batch to one of them.
        crop_seconds=max(crop_seconds) if isinstance(crop_seconds, list) else crop_seconds,
        sample_rate=hparams["sample_rate"],
        augment=hparams["waveform_augmentation"],
        speeds=hparams["speeds"],
        seed=hparams["seed"],
        cache_audio=hparams["cache_audio"],
    )


def build_sampler(hparams: dict, training_set: TrainingCrops) -> Sampler | None:
    """Return a sampler that draws from each corpus by its weight, long utterances more often, or one for shards.

    None if there are neither weights nor shards.
    """
    weights = hparams.get("corpus_weights")
    if hparams.get("shards_folder"):
        if weights is not None:
            raise ValueError("corpus_weights draws utterances anywhere, shards_folder shard by shard: give one of them")
        members = [training_set.data[name]["wav"] for name in training_set.data_ids]
        return ShardOrder(members, hparams["shuffle_buffer"], hparams["seed"], process_count())
    if weights is None:
        return None
    folders = [*_as_list(hparams["data_folder"]), *_as_list(hparams.get("unlabelled_folder"))]
    if len(weights) != len(folders):
        raise ValueError(f"corpus_weights={weights}, but there are {len(folders)} folders: give one for each")
    longest = training_set.n_samples / training_set.sample_rate
    rows = training_set.data.values()
    corpus = [folder_of(row["wav"], folders) for row in rows]
    if -1 in corpus:
        raise ValueError("corpus_weights does not know which folder converted files came from: give it null")
    seconds = [min(float(row["duration"]), longest) for row in rows]
    totals = [0.0] * len(folders)
    for which, value in zip(corpus, seconds, strict=True):
        totals[which] += value
    shares = [weights[which] * value / totals[which] for which, value in zip(corpus, seconds, strict=True)]
    return ReproducibleWeightedRandomSampler(shares, len(shares), replacement=True, seed=hparams["seed"])


def _as_list(value) -> list[str]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _labels_to_keep(hparams: dict, speakers: set[str]) -> CategoricalEncoder | None:
    """Return the classes of the model in `init_from` if all speakers are among them, else None."""
    if not hparams.get("init_from"):
        return None
    labels = read_labels(hparams["init_from"], needed=False)
    return labels if labels is not None and speakers <= labels.lab2ind.keys() else None


def build_dev_set(hparams: dict) -> tuple[list[dict], Trials, list[int]] | None:
    """Return the rows of the held-out utterances, their trials and the data folder of each row, or None if none."""
    if not hparams["dev_speakers"]:
        return None
    folder = Path(hparams["save_folder"])
    with open(folder / "dev.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    models = folder / "dev_model_enrollment.txt"
    trials = read_trials(folder / "dev_trials.txt", enrolment=models if models.is_file() else None)
    return rows, trials, [folder_of(row["wav"], _as_list(hparams["data_folder"])) for row in rows]


def build_brain(hparams: dict, run_opts: dict, training_set: TrainingCrops) -> SpeakerBrain:
    """Return the brain: with a teacher if the YAML names one or trains one alongside (`teacher_source` null)."""
    classes = None if hparams.get("encoder_lr") is None else PhraseClasses(training_set)
    n_classes = training_set.n_classes if classes is None else classes.count(hparams["phrase_class"])
    new_classifier = partial(hparams["classifier"], out_neurons=n_classes)
    classifier = new_classifier()
    if "phonetic_source" in hparams:
        # Part of the embedder: checkpoints and exports include it.
        load_parameters({"phonetic_model": hparams["phonetic_model"]}, hparams["phonetic_source"])
    share = hparams.get("init_weight") or 0.0
    if not 0 <= share < 1:
        raise ValueError(f"init_weight must be at least 0 and less than 1, got {share}")
    if share and not hparams["init_from"]:
        raise ValueError(f"init_weight={share} needs a model to start from: set init_from, to 'tiny' for instance")
    if hparams.get("init_from"):
        model = hparams["embedding_model"]
        parts = {"embedding_model": getattr(model, "encoder", model)}
        speakers = {row["spk_id"] for row in training_set.data.values()} - {""}
        if _labels_to_keep(hparams, speakers) is not None:
            parts["classifier"] = classifier
        load_parameters(parts, hparams["init_from"])
    hparams["checkpointer"].add_recoverable("classifier", classifier)
    modules = {**hparams["modules"], "classifier": classifier}
    options = {
        "modules": modules,
        "opt_class": hparams["opt_class"],
        "hparams": hparams,
        "run_opts": run_opts,
        "checkpointer": hparams["checkpointer"],
    }
    if classes is not None:
        return VoicePhraseBrain(classes, **options)
    targets = None
    if "target_files" in hparams:
        files = hparams["target_files"]
        if isinstance(files, list):
            if len(files) != len(training_set.speeds):
                raise ValueError(f"target_files has {len(files)} files for speeds={training_set.speeds}")
            files = dict(zip(training_set.speeds, files, strict=True))
        targets = StoredTargets(files)
        seconds = {name: float(row["duration"]) for name, row in training_set.data.items()}
        targets.check(seconds, training_set.speeds)
        if hparams["centre_by_corpus"]:
            folders = [*_as_list(hparams["data_folder"]), *_as_list(hparams["unlabelled_folder"])]
            targets.centre({name: folder_of(row["wav"], folders) for name, row in training_set.data.items()})
    if "teacher_source" not in hparams:
        return SpeakerBrain(**options) if targets is None else DistillationBrain(None, targets, **options)
    source, model = hparams["teacher_source"], hparams["teacher_model"]
    with_predictions = any(
        loss["compares"] == "predictions" and loss["weight"] is not None
        for loss in hparams["distillation_losses"].values()
    )
    if with_predictions:
        modules["distillation_classifier"] = new_classifier()
    if source is None:
        teacher = LearningTeacher(model, new_classifier())
    elif with_predictions:
        teacher = load_teacher(source, model, classifier=new_classifier(), label_encoder=training_set.encoder)
    else:
        teacher = load_teacher(source, model)
    return DistillationBrain(teacher, targets, **options)


def train(prepare: Callable[[dict], object], hparams_file: str, run_opts: dict, overrides: str) -> None:
    """Prepare the data, train, and plot the curves.

    Parameters
    ----------
    prepare : callable
        Called with the hyperparameters on the main process; writes `train.csv`, `dev.csv` and `dev_trials.txt` (with
        `dev_model_enrollment.txt` if trials are against models) into `save_folder`.
    hparams_file, run_opts, overrides
        As `speechbrain.parse_arguments` returns them.
    """
    hparams = load_hparams(hparams_file, overrides)
    for name in POSITIVE:
        values = hparams[name] if isinstance(hparams[name], list) else [hparams[name]]
        if not values or any(value is not None and value <= 0 for value in values):
            raise ValueError(f"{name} must be greater than 0, got {hparams[name]}")
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        if "GPUs" not in str(error):
            raise
        raise ValueError(
            "torchrun starts a process for each GPU, and there are fewer: lower --nproc_per_node, or train on the CPU "
            "with --device=cpu --distributed_backend=gloo"
        ) from error
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    if if_main_process():  # SpeechBrain keeps this file; keep the recipe's, too
        shutil.copy(sys.modules[prepare.__module__].__file__, hparams["output_folder"])
    run_on_main(prepare, [hparams])
    if hparams["tensorboard"]:
        try:
            hparams["tensorboard_logger"] = TensorboardLogger(Path(hparams["output_folder"]) / "tensorboard")
        except ImportError as error:
            raise ImportError("tensorboard=True needs the package: pip install tensorboard") from error
    training_set = build_training_set(hparams)
    brain = build_brain(hparams, run_opts, training_set)
    loader_options = hparams["dataloader_options"]
    if (sampler := build_sampler(hparams, training_set)) is not None:
        loader_options = {**loader_options, "shuffle": False, "sampler": sampler}
    dev_set = build_dev_set(hparams)
    brain.fit(hparams["epoch_counter"], training_set, dev_set, train_loader_kwargs=loader_options)
    if isinstance(brain, VoicePhraseBrain) and dev_set is not None:
        try:
            brain.calibrate(hparams["output_folder"])
        except ValueError as error:  # the training itself is unaffected
            logger.warning(f"no decisions were calibrated: {error}")
    run_on_main(
        plot_training_curves, [hparams["train_log"], Path(hparams["output_folder"]) / "training_curves.png"]
    )
    if is_distributed_initialized():
        torch.distributed.destroy_process_group()


def prepare_phrase_training(prepare: Callable[..., Preparation], hparams: dict) -> None:
    """Prepare a phrase corpus for training, with the classes and dev trials that the YAML sets."""
    options = {key: hparams[key] for key in ("class_of", "dev_speakers", "dev_trials")}
    prepare_from_hparams(prepare, hparams, **options)


def run_training(prepare: Callable[[dict], object], arguments: Sequence[str] | None = None) -> int:
    """Run a training recipe from the command line: `<script> <YAML> --key=value ...`.

    Parameters
    ----------
    prepare : callable
        See `train`; a function of the recipe's script.
    arguments : sequence of str or None
        By default, those of the command line.

    Returns
    -------
    int
        Exit code: 0, or 2 if the user's input cannot be used, reported in one line on standard error.
    """
    try:
        train(prepare, *sb.parse_arguments(list(sys.argv[1:] if arguments is None else arguments)))
    except (OSError, ImportError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
