#!/usr/bin/env python3
"""Verifies speakers: embeds each utterance of a trial list once, and scores the trials by cosine.

    python speaker_verification_cosine.py hparams/verification_bccmt_tiny.yaml --data_folder=/data/VoxCeleb1 \
        --verification_file=/data/meta/veri_test2.txt --pretrain_path=results/bccmt_tiny/1986

Any key of the YAML can be set in this way. Writes scores.txt, scores_norm.txt (with score normalisation),
results.json, score_histogram.png and det.png into the output folder.
"""

import csv
import json
import sys
import time
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

from speechbrain_bccmt.data.trials import read_trials
from speechbrain_bccmt.data.voxceleb import prepare_voxceleb
from speechbrain_bccmt.hparams import load_hparams
from speechbrain_bccmt.pretrained import load_pretrained
from speechbrain_bccmt.scoring import cosine_scores, s_norm
from speechbrain_bccmt.scoring.embeddings import embed_utterances
from speechbrain_bccmt.scoring.norms import choose_cohort, speaker_means
from speechbrain_bccmt.scoring.plots import plot_det, plot_score_histogram
from speechbrain_bccmt.scoring.report import format_table, summarise, write_scores

logger = get_logger(__name__)


def read_rows(path):
    """Read the rows of a CSV of utterances."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def embed(hparams, rows, device, progress):
    """Embed utterances with the modules of the YAML."""
    return embed_utterances(
        rows,
        **hparams["modules"],
        device=device,
        batch_seconds=hparams["batch_seconds"],
        progress=progress,
    )


def verify(hparams, device, progress):
    """Score the trials, write what was found, and give the results."""
    output_folder = Path(hparams["output_folder"])
    if hparams["score_norm"] not in (None, "s-norm"):
        raise ValueError(f"score_norm is '{hparams['score_norm']}', expected s-norm or null")
    trials = read_trials(hparams["verification_file"])
    for module in hparams["modules"].values():
        module.to(device)
    prepared = prepare_voxceleb(
        hparams["data_folder"],
        hparams["save_folder"],
        hparams["verification_file"],
        dev_speakers=0,
        training=hparams["score_norm"] is not None,  # the cohort are training speakers
        progress=progress,
    )

    seconds = {}
    start = time.perf_counter()
    rows = read_rows(prepared.test_csv)
    ids, embeddings = embed(hparams, rows, device, progress)
    position = {utterance: index for index, utterance in enumerate(ids)}
    embeddings = embeddings[[position[utterance] for utterance in trials.ids]]
    seconds["embedding"] = time.perf_counter() - start

    start = time.perf_counter()
    scores = {"cosine": cosine_scores(embeddings, trials.enrol, trials.test)}
    seconds["scoring"] = time.perf_counter() - start
    write_scores(output_folder / "scores.txt", trials, scores["cosine"])

    cohort_size = 0
    (output_folder / "scores_norm.txt").unlink(missing_ok=True)  # of an earlier run
    if hparams["score_norm"]:
        start = time.perf_counter()
        chosen = choose_cohort(
            read_rows(prepared.train_csv),
            hparams["cohort_size"],
            hparams["cohort_utterances"],
            hparams["seed"],
        )
        _, of_cohort = embed(hparams, chosen, device, progress)
        cohort = speaker_means(of_cohort, [row["spk_id"] for row in chosen])
        cohort_size = len(cohort)
        seconds["cohort"] = time.perf_counter() - start
        start = time.perf_counter()
        scores["s-norm"] = s_norm(
            scores["cosine"], embeddings, trials.enrol, trials.test, cohort, hparams["top_n"]
        )
        seconds["normalisation"] = time.perf_counter() - start
        write_scores(output_folder / "scores_norm.txt", trials, scores["s-norm"])

    costs = {key: hparams[key] for key in ("p_target", "c_miss", "c_fa")}
    results = {
        "scores": {name: summarise(values, trials.target, **costs) for name, values in scores.items()},
        "costs": costs,
        "n_trials": len(trials),
        "n_utterances": len(trials.ids),
        "audio_seconds": round(sum(float(row["duration"]) for row in rows), 2),
        "cohort_speakers": cohort_size,
        "n_parameters": sum(parameter.numel() for parameter in hparams["embedding_model"].parameters()),
        "embedding_model": str(hparams["pretrainer"].paths["embedding_model"]),
        "verification_file": str(hparams["verification_file"]),
        "device": str(device),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    (output_folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    pairs = {name: (values[trials.target], values[~trials.target]) for name, values in scores.items()}
    name = Path(hparams["verification_file"]).name
    plot_score_histogram(*pairs["cosine"], output_folder / "score_histogram.png", title=f"{name}, cosine")
    plot_det(pairs, output_folder / "det.png", title=name)
    return results


def print_results(results, output_folder):
    """Print the table of results."""
    first = results["scores"]["cosine"]
    print(
        f"\n{results['n_trials']:,} trials ({first['n_target']:,} target, {first['n_nontarget']:,} "
        f"non-target) of {results['n_utterances']:,} utterances, {results['n_parameters']:,} parameters\n"
    )
    print(format_table(results["scores"]))
    print(f"\nScores, results and pictures are in {output_folder}")


def main(arguments=None):
    """Run from the command line; give the exit code."""
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
        hparams = load_hparams(hparams_file, overrides)
        sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
        files = load_pretrained(hparams["pretrainer"], hparams["pretrain_path"])
        logger.info(f"Embedding model: {files['embedding_model']}")
        device = run_opts["device"] or infer_device()
        results = verify(hparams, device, progress=not run_opts["noprogressbar"])
    except (OSError, ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_results(results, hparams["output_folder"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
