"""The steps that the verification recipes share: command line, embeddings, timing, and what is kept of a run."""

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
from speechbrain.utils.logger import get_logger

from speechbrain_bccmt.evaluation.plots import plot_det, plot_score_histogram
from speechbrain_bccmt.evaluation.summary import format_table, summarise, write_scores
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.hparams import load_hparams
from speechbrain_bccmt.inference.embedding_store import embed_with_store
from speechbrain_bccmt.inference.parameters import load_pretrained
from speechbrain_bccmt.trials.read import Trials

logger = get_logger(__name__)


class Experiment:
    """A YAML's trained model at work: embeds utterances, times the steps and writes down the results.

    Parameters
    ----------
    hparams : dict
        Of the YAML: `modules`, `embeddings_folder` (of the store, see `EmbeddingStore`), `batch_seconds`,
        `output_folder`, and for `report` also `pretrainer`, `verification_file`, `p_target`, `c_miss` and `c_fa`.
    device : str or torch.device
        Where to compute embeddings.
    progress : bool
        Show progress bars.

    Attributes
    ----------
    seconds : dict of str to float
        What each step took.
    """

    def __init__(self, hparams: dict, device, progress: bool = True):
        self.hparams, self.device, self.progress = hparams, device, progress
        self.output_folder = Path(hparams["output_folder"])
        self.seconds: dict[str, float] = {}
        for module in hparams["modules"].values():
            module.to(device)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Time what is done inside, under the name of the step."""
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start

    def embed(self, rows: list[dict]) -> np.ndarray:
        """Embed utterances, or read their embeddings from the store: (N, D), in the order of the rows."""
        return embed_with_store(
            rows,
            **self.hparams["modules"],
            folder=self.hparams["embeddings_folder"],
            device=self.device,
            batch_seconds=self.hparams["batch_seconds"],
            progress=self.progress,
        )[1]

    def embed_trials(self, rows: list[dict], trials: Trials) -> np.ndarray:
        """Embed the utterances of a trial list: (N, D), in the order of `trials.ids`."""
        by_id = {row["ID"]: row for row in rows}
        with self.timed("embedding"):
            return self.embed([by_id[utterance] for utterance in trials.ids])

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
            The system of the histogram.
        **found
            More to keep in results.json.

        Returns
        -------
        dict
            What results.json holds.
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
            "n_parameters": sum(
                parameter.numel() for parameter in hparams["modules"]["embedding_model"].parameters()
            ),
            "embedding_model": str(hparams["pretrainer"].paths["embedding_model"]),
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
        Gets the `Experiment`, with the parameters of `pretrain_path` loaded.
    arguments : sequence of str or None
        Those of the command line if None.

    Returns
    -------
    int
        Exit code: 0, or 2 where the user's input cannot be used, which is told in a line on standard error.
    """
    try:
        hparams_file, run_opts, overrides = sb.parse_arguments(
            list(sys.argv[1:] if arguments is None else arguments)
        )
        hparams = load_hparams(hparams_file, overrides)
        sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
        files = load_pretrained(hparams["pretrainer"], hparams["pretrain_path"])
        logger.info(f"Embedding model: {files['embedding_model']}")
        device = run_opts["device"] or infer_device()
        work(Experiment(hparams, device, progress=not run_opts["noprogressbar"]))
    except (OSError, ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def print_results(results: dict, output_folder: str | Path) -> None:
    """Print the table of what `Experiment.report` gave."""
    first = next(iter(results["scores"].values()))
    print(
        f"\n{results['n_trials']:,} trials ({first['n_target']:,} target, {first['n_nontarget']:,} "
        f"non-target) of {results['n_utterances']:,} utterances, {results['n_parameters']:,} parameters\n"
    )
    print(format_table(results["scores"]))
    print(f"\nScores, results and pictures are in {output_folder}")
