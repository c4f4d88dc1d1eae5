#!/usr/bin/env python3
"""Trains speaker embeddings, with or without a teacher.

    python train_speaker_embeddings.py hparams/bccmt_tiny.yaml --data_folder=/data/VoxCeleb2 \
        --verification_file=/data/meta/veri_test2.txt --noise_folder=/data/musan \
        --rir_folder=/data/RIRS_NOISES

Any key of the YAML can be set in this way. Started again, it resumes from the last checkpoint.
"""

import csv
import shutil
import sys
from pathlib import Path

import speechbrain as sb
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.utils.distributed import ddp_init_group, run_on_main
from speechbrain.utils.parameter_transfer import Pretrainer
from speechbrain.utils.train_logger import TensorboardLogger

from speechbrain_bccmt.brain import DistillationBrain, SpeakerBrain
from speechbrain_bccmt.curves import plot_training_curves
from speechbrain_bccmt.data.crops import TrainingCrops
from speechbrain_bccmt.data.trials import read_trials
from speechbrain_bccmt.data.voxceleb import prepare_voxceleb
from speechbrain_bccmt.hparams import load_hparams
from speechbrain_bccmt.pretrained import find_checkpoint_file, load_pretrained
from speechbrain_bccmt.teachers import load_teacher


def build_training_set(hparams):
    """Give the training crops, whose number of classes comes from the data."""
    label_encoder_file = Path(hparams["save_folder"]) / "label_encoder.txt"
    if "init_from" in hparams:
        # The classifier goes on with the classes that it has learnt.
        checkpoint = find_checkpoint_file(hparams["init_from"])
        for folder in (checkpoint.parent, checkpoint.parents[1]):  # a flat folder, or save/CKPT+...
            if (folder / "label_encoder.txt").is_file():
                shutil.copy(folder / "label_encoder.txt", label_encoder_file)
                break
    return TrainingCrops(
        load_data_csv(Path(hparams["save_folder"]) / "train.csv"),
        label_encoder_file=label_encoder_file,
        crop_seconds=hparams["crop_seconds"],
        sample_rate=hparams["sample_rate"],
        augment=hparams["augmentation"]["waveform"],
        speeds=hparams["speeds"],
        seed=hparams["seed"],
        cache_audio=hparams["cache_audio"],
    )


def build_dev_set(hparams):
    """Give the rows of the held-out utterances and their trials, or None where there are none."""
    if not hparams["dev_speakers"]:
        return None
    with open(Path(hparams["save_folder"]) / "dev.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows, read_trials(Path(hparams["save_folder"]) / "dev_trials.txt")


def build_brain(hparams, run_opts, n_classes):
    """Give the brain: with a teacher if the YAML names one."""
    classifier = hparams["classifier"](out_neurons=n_classes)
    if "init_from" in hparams:
        loadables = {"embedding_model": hparams["embedding_model"], "classifier": classifier}
        load_pretrained(Pretrainer(loadables=loadables), hparams["init_from"])
    hparams["checkpointer"].add_recoverable("classifier", classifier)
    modules = {
        **hparams["modules"],
        "classifier": classifier,
        "spec_augment": hparams["augmentation"]["features"],
    }
    options = {
        "modules": modules,
        "opt_class": hparams["opt_class"],
        "hparams": hparams,
        "run_opts": run_opts,
        "checkpointer": hparams["checkpointer"],
    }
    if "teacher_source" not in hparams:
        return SpeakerBrain(**options)
    return DistillationBrain(load_teacher(hparams["teacher_source"], hparams["teacher_model"]), **options)


def train(hparams_file, run_opts, overrides):
    """Prepare the data, train, and draw the curves."""
    hparams = load_hparams(hparams_file, overrides)
    ddp_init_group(run_opts)
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    run_on_main(
        prepare_voxceleb,
        kwargs={
            "data_folders": hparams["data_folder"],
            "save_folder": hparams["save_folder"],
            "verification_files": hparams["verification_file"] or (),
            "dev_speakers": hparams["dev_speakers"],
            "dev_trials": hparams["dev_trials"],
        },
    )
    if hparams["tensorboard"]:
        try:
            hparams["tensorboard_logger"] = TensorboardLogger(Path(hparams["output_folder"]) / "tensorboard")
        except ImportError as error:
            raise ImportError("tensorboard=True needs the package: pip install tensorboard") from error
    training_set = build_training_set(hparams)
    brain = build_brain(hparams, run_opts, training_set.n_classes)
    brain.fit(
        hparams["epoch_counter"],
        training_set,
        build_dev_set(hparams),
        train_loader_kwargs=hparams["dataloader_options"],
    )
    run_on_main(
        plot_training_curves, [hparams["train_log"], Path(hparams["output_folder"]) / "training_curves.png"]
    )


def main(arguments=None):
    """Run from the command line; give the exit code."""
    try:
        train(*sb.parse_arguments(sys.argv[1:] if arguments is None else arguments))
    except (OSError, ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
