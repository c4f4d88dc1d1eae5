"""Verification of speakers and their phrases, as the text-dependent recipes share it."""

from __future__ import annotations

from collections.abc import Callable

from speechbrain_bccmt.corpora.preparation import Preparation, prepare_from_hparams
from speechbrain_bccmt.evaluation.experiment import Experiment, print_results, read_rows
from speechbrain_bccmt.evaluation.trial_types import format_type_table, summarise_types
from speechbrain_bccmt.scoring.cohort import choose_cohort, speaker_means
from speechbrain_bccmt.scoring.cosine import cosine_scores
from speechbrain_bccmt.scoring.norms import s_norm
from speechbrain_bccmt.trials.read import read_trials
from speechbrain_bccmt.trials.table import TRIAL_TYPES


def verify_phrases(experiment: Experiment, prepare: Callable[..., Preparation]) -> dict:
    """Score trials of models against utterances by cosine, and report the error rates by type of trial.

    Parameters
    ----------
    experiment : Experiment
        With the hyperparameters `data_folder`, `save_folder`, `corpus_options`, `class_of`, `key_file`,
        `enrolment`, `score_norm`, `cohort_utterances`, `top_n` and `seed`, besides those of `Experiment`.
    prepare : callable
        The corpus's preparation, see `prepare_from_hparams`.

    Returns
    -------
    dict
        What results.json holds: `types` has, for each system, what `summarise_types` gives.

    Raises
    ------
    ValueError
        For an unknown `score_norm`, and where there is no trial list, or nothing tells its labels.
    """
    hparams = experiment.hparams
    if hparams["score_norm"] not in (None, "s-norm"):
        raise ValueError(f"score_norm is '{hparams['score_norm']}', expected s-norm or null")
    prepared = prepare_from_hparams(
        prepare,
        hparams,
        class_of=hparams["class_of"],
        dev_speakers=0,
        training=hparams["score_norm"] is not None,  # the cohort are training classes
        progress=experiment.progress,
    )
    if prepared.test_trials is None:
        raise ValueError(
            f"no trial list to verify: {hparams['data_folder']} has none, and corpus_options name none"
        )
    hparams["verification_file"] = prepared.test_trials  # for the report
    rows = read_rows(prepared.test_csv)
    trials = read_trials(
        prepared.test_trials, {row["ID"] for row in rows}, prepared.test_models, hparams["key_file"]
    )
    embeddings = experiment.embed_trials(rows, trials)
    pairs = embeddings, trials.enrol, trials.test
    with experiment.timed("scoring"):
        scores = {"cosine": cosine_scores(*pairs, trials.models, hparams["enrolment"])}
    files = {"cosine": "scores.txt"}
    (experiment.output_folder / "scores_norm.txt").unlink(missing_ok=True)  # of an earlier run
    if hparams["score_norm"]:
        chosen = choose_cohort(
            read_rows(prepared.train_csv), None, hparams["cohort_utterances"], hparams["seed"]
        )
        with experiment.timed("cohort"):
            cohort = speaker_means(experiment.embed(chosen), [row["spk_id"] for row in chosen])
        with experiment.timed("normalisation"):
            scores["s-norm"] = s_norm(
                scores["cosine"], *pairs, cohort, hparams["top_n"], trials.models, hparams["enrolment"]
            )
        files["s-norm"] = "scores_norm.txt"
    costs = {key: hparams[key] for key in ("p_target", "c_miss", "c_fa")}
    types = {}
    if set(trials.trial_types) <= TRIAL_TYPES.keys() and trials.trial_type is not None:
        types = {
            system: summarise_types(values, trials.trial_type, trials.trial_types, **costs)
            for system, values in scores.items()
        }
    results = experiment.report(trials, scores, files, picture_of="cosine", types=types)
    print_results(results, experiment.output_folder)
    for system, table in types.items():
        print(f"\n{system}, by what the non-target trials are:\n{format_type_table(table)}")
    return results
