"""The steps that the verification recipes share: command line, embeddings, scores, timing and results."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import speechbrain as sb
from speechbrain.utils.distributed import infer_device

from speechbrain_bccmt.corpora.preparation import Preparation, prepare_from_hparams
from speechbrain_bccmt.evaluation.plots import plot_det, plot_score_histogram
from speechbrain_bccmt.evaluation.summary import format_table, summarise, write_scores
from speechbrain_bccmt.evaluation.trial_types import format_type_table, summarise_types
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.hparams import load_hparams
from speechbrain_bccmt.inference.embedding import embed_with_store
from speechbrain_bccmt.inference.model_folder import SpeakerModel, load_speaker_model
from speechbrain_bccmt.profiling import count_parameters
from speechbrain_bccmt.scoring.cohorts import choose_cohort, speaker_means
from speechbrain_bccmt.scoring.cosine import cosine_scores
from speechbrain_bccmt.scoring.norms import s_norm
from speechbrain_bccmt.trials.read import Trials, read_trials
from speechbrain_bccmt.trials.table import TRIAL_TYPES


class Experiment:
    """A trained model on a corpus: embeds utterances, times the steps and writes the results.

    Parameters
    ----------
    hparams : dict
        From the YAML: `embeddings_folder` (of the store, see `EmbeddingStore`), `batch_seconds`, `output_folder`, and
        for `report` also `verification_file`, `p_target`, `c_miss` and `c_fa`.
    model : SpeakerModel
        The trained model.
    device : str or torch.device
        Where to compute embeddings.
    progress : bool
        Show progress bars.

    Attributes
    ----------
    seconds : dict of str to float
        Duration of each step.
    """

    def __init__(self, hparams: dict, model: SpeakerModel, device, progress: bool = True):
        self.hparams, self.model, self.device, self.progress = hparams, model, device, progress
        self.output_folder = Path(hparams["output_folder"])
        self.seconds: dict[str, float] = {}
        for module in model.modules.values():
            module.to(device)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Time the enclosed code, under the name of the step."""
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start

    def embed(self, rows: list[dict]) -> np.ndarray:
        """Embed utterances, or read their embeddings from the store: (N, D), in the order of the rows."""
        return embed_with_store(
            rows,
            **self.model.modules,
            folder=self.hparams["embeddings_folder"],
            device=self.device,
            batch_seconds=self.hparams["batch_seconds"],
            progress=self.progress,
            vad=self.hparams.get("vad", False),
        )[1]

    def embed_trials(self, rows: list[dict], trials: Trials) -> np.ndarray:
        """Embed the utterances of a trial list: (N, D), in the order of `trials.ids`."""
        by_id = {row["ID"]: row for row in rows}
        with self.timed("embedding"):
            return self.embed([by_id[utterance] for utterance in trials.ids])

    def score_by_cosine(
        self,
        trials: Trials,
        embeddings: np.ndarray,
        train_csv: str | None,
        enrolment: str = "mean_embedding",
    ) -> tuple[dict, dict, int]:
        """Score trials by cosine, and normalised by the cohort of the training speakers if the YAML says so.

        Parameters
        ----------
        trials : Trials
            The trials.
        embeddings : numpy.ndarray
            From `embed_trials`, (N, D).
        train_csv : str or None
            Utterances of the cohort, needed with `score_norm`.
        enrolment : str
            How the utterances of a model are combined, see `cosine_scores`.

        Returns
        -------
        scores, files : dict
            System to its scores (M,), and to the name of its score file, as `report` takes them.
        n_cohort : int
            Number of speakers in the cohort.
        """
        hparams, pairs = self.hparams, (embeddings, trials.enrol, trials.test)
        with self.timed("scoring"):
            scores, files = (
                {"cosine": cosine_scores(*pairs, trials.models, enrolment)},
                {"cosine": "scores.txt"},
            )
        (self.output_folder / "scores_norm.txt").unlink(missing_ok=True)  # of an earlier run
        if not hparams["score_norm"]:
            return scores, files, 0
        limits = hparams.get("cohort_size"), hparams["cohort_utterances"], hparams["seed"]
        chosen = choose_cohort(read_rows(train_csv), *limits)
        with self.timed("cohort"):
            cohort = speaker_means(self.embed(chosen), [row["spk_id"] for row in chosen])
        with self.timed("normalisation"):
            scores["s-norm"] = s_norm(
                scores["cosine"], *pairs, cohort, hparams["top_n"], trials.models, enrolment
            )
        return scores, files | {"s-norm": "scores_norm.txt"}, len(cohort)

    def report(
        self,
        trials: Trials,
        scores: Mapping[str, np.ndarray],
        files: Mapping[str, str],
        picture_of: str,
        **found,
    ) -> dict:
        """Write scores, results.json, score_histogram.png and det.png into the output folder.

        Parameters
        ----------
        trials : Trials
            The trials.
        scores : mapping of str to numpy.ndarray
            Name of each system to its scores, (M,).
        files : mapping of str to str
            Name of a system to the text file in the output folder that its scores go to.
        picture_of : str
            The system shown in the histogram.
        **found
            Further entries of results.json.

        Returns
        -------
        dict
            The contents of results.json.
        """
        hparams, folder = self.hparams, self.output_folder
        for system, file in files.items():
            write_scores(folder / file, trials, scores[system])
        costs = {key: hparams[key] for key in ("p_target", "c_miss", "c_fa")}
        results = {
            "scores": {
                system: summarise(values, trials.target, **costs) for system, values in scores.items()
            },
            "costs": costs,
            "n_trials": len(trials),
            "n_utterances": len(trials.ids),
            **found,
            "n_parameters": count_parameters(self.model.embedding_model),
            "embedding_model": self.model.source,
            "verification_file": str(hparams["verification_file"]),
            "device": str(self.device),
            "seconds": {step: round(value, 3) for step, value in self.seconds.items()},
        }
        with temporary_sibling(folder / "results.json") as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            temporary.replace(folder / "results.json")
        pairs = {system: (values[trials.target], values[~trials.target]) for system, values in scores.items()}
        name = Path(hparams["verification_file"]).name
        plot_score_histogram(
            *pairs[picture_of], folder / "score_histogram.png", title=f"{name}, {picture_of}"
        )
        plot_det(pairs, folder / "det.png", title=name)
        return results


def read_rows(path: str | Path) -> list[dict]:
    """Read the rows of a CSV of utterances."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_recipe(work: Callable[[Experiment], None], arguments: Sequence[str] | None = None) -> int:
    """Run a recipe with a trained model from the command line: `<script> <YAML> --key=value ...`.

    Parameters
    ----------
    work : callable
        Called with the `Experiment`, with the parameters of `pretrain_path` loaded.
    arguments : sequence of str or None
        Those of the command line if None.

    Returns
    -------
    int
        Exit code: 0, or 2 if the user's input cannot be used, reported in one line on standard error.
    """
    try:
        hparams_file, run_opts, overrides = sb.parse_arguments(
            list(sys.argv[1:] if arguments is None else arguments)
        )
        hparams = load_hparams(hparams_file, overrides)
        sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
        model = load_speaker_model(hparams["pretrain_path"])
        device = run_opts["device"] or infer_device()
        work(Experiment(hparams, model, device, progress=not run_opts["noprogressbar"]))
    except (OSError, ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def print_results(results: dict, output_folder: str | Path) -> None:
    """Print the results of `Experiment.report` as a table."""
    first = next(iter(results["scores"].values()))
    print(
        f"\n{results['n_trials']:,} trials ({first['n_target']:,} target, {first['n_nontarget']:,} "
        f"non-target) of {results['n_utterances']:,} utterances, {results['n_parameters']:,} parameters\n"
    )
    print(format_table(results["scores"]))
    print(f"\nScores, results and pictures are in {output_folder}")


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
        The contents of results.json: `types` has the result of `summarise_types` for each system.

    Raises
    ------
    ValueError
        For an unknown `score_norm`, and if there is no trial list or its labels are unknown.
    """
    hparams = experiment.hparams
    check_score_norm(hparams)
    prepared = prepare_from_hparams(
        prepare,
        hparams,
        class_of=hparams["class_of"],
        dev_speakers=0,
        training=hparams["score_norm"] is not None,  # the cohort consists of training classes
        progress=experiment.progress,
    )
    if prepared.test_trials is None:
        raise ValueError(
            f"no trial list to verify: {hparams['data_folder']} has none, and corpus_options name none"
        )
    hparams["verification_file"] = prepared.test_trials  # for the report
    rows = read_rows(prepared.test_csv)
    known = {row["ID"] for row in rows}
    trials = read_trials(prepared.test_trials, known, prepared.test_models, hparams["key_file"])
    embeddings = experiment.embed_trials(rows, trials)
    scores, files, _ = experiment.score_by_cosine(trials, embeddings, prepared.train_csv, hparams["enrolment"])
    parts = score_parts(experiment, trials, embeddings)
    scores, files = scores | parts, files | {part: f"scores_{part}.txt" for part in parts}
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


def score_parts(
    experiment: Experiment, trials: Trials, embeddings: np.ndarray
) -> dict[str, np.ndarray]:
    """Score voice and phrase separately, and fused, as far as the model can.

    Returns
    -------
    dict of str to numpy.ndarray
        "voice" and "phrase" to scores (M,), if the embedding has two parts, and "fusion", if these are calibrated.
    """
    model = experiment.model
    size = getattr(model.embedding_model, "voice_size", None)
    if size is None:
        return {}
    voice, phrase = (
        np.asarray(
            cosine_scores(part, trials.enrol, trials.test, trials.models, experiment.hparams["enrolment"])
        )
        for part in np.split(embeddings, [size], axis=1)
    )
    fusion = model.phrase_fusion
    fused = {} if fusion is None else {"fusion": fusion.both.llr(fusion.fuse(voice, phrase))}
    return {"voice": voice, "phrase": phrase} | fused


def check_score_norm(hparams: Mapping) -> None:
    """Raise ValueError for an unknown `score_norm`."""
    if hparams["score_norm"] not in (None, "s-norm"):
        raise ValueError(f"score_norm is '{hparams['score_norm']}', expected s-norm or null")
