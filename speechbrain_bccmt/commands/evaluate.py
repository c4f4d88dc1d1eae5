"""`bccmt evaluate`: evaluate scores or embeddings on a trial list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs

SYSTEM = "[NAME=]FILE"


@click.command()
@click.option(
    "--scores", multiple=True, metavar=SYSTEM, help="Score file of any toolkit; repeat to compare systems."
)
@click.option(
    "--embeddings",
    multiple=True,
    metavar=SYSTEM,
    help="Embeddings from `bccmt embed -o`; repeat to compare systems.",
)
@click.option("--trials", metavar="FILE", help="Trial list; not needed if the score file has labels.")
@click.option(
    "--enrolment", metavar="FILE", help="Enrolment list: the utterances of each model of the trials."
)
@click.option("--cohort", metavar="FILE", help="Embeddings of other speakers: adds s-norm to --embeddings.")
@click.option(
    "--subtract-mean", is_flag=True, help="Subtract the cohort's mean from --embeddings before the cosine."
)
@click.option(
    "--quality-trials",
    metavar="FILE",
    help="Trial list of other speakers over the same --embeddings, to calibrate on: with the score alone, and with the "
    "durations and norms of both sides.",
)
@click.option(
    "--top-n", type=click.IntRange(2), help="Adaptive s-norm with this many top cohort scores. Default: all."
)
@click.option(
    "--conditions", metavar="FILE", help="Key file, `enrol test <condition>...`, for a table by condition."
)
@click.option("--speakers", metavar="FILE", help="Lines `utterance speaker`. Default: the id's first folder.")
@click.option("--calibration", metavar="FILE", help="Calibration JSON, for actDCF and Cllr.")
@click.option(
    "--calibrate-on", metavar="FILE", help="Labelled scores of other trials, to fit a calibration on."
)
@click.option("--save-calibration", metavar="FILE", help="Fit a calibration on these scores and write it.")
@click.option("--p-target", type=float, default=0.01, show_default=True, help="Prior of a target trial.")
@click.option("--c-miss", type=float, default=1.0, show_default=True, help="Cost of a miss.")
@click.option("--c-fa", type=float, default=1.0, show_default=True, help="Cost of a false alarm.")
@click.option(
    "--far", type=float, default=0.01, show_default=True, help="False-alarm rate to report the miss rate at."
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Bootstrap resamples; 0: none.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Bootstrap seed.")
@click.option("-o", "--output", metavar="FOLDER", help="Folder to write results.json and plots to.")
@inputs.json_option
def evaluate(**options):
    """Evaluate scores or embeddings on a trial list: EER, minDCF, actDCF, Cllr, with confidence intervals.

    Confidence intervals (95 %) use a bootstrap over speakers, not over trials: they show how much the results would
    vary with other speakers. All systems are evaluated on the same trials.
    """
    if not options["scores"] and not options["embeddings"]:
        raise click.UsageError("give --scores or --embeddings")
    if options["embeddings"] and not options["trials"]:
        raise click.UsageError("--embeddings needs --trials")
    if options["cohort"] and not options["embeddings"]:
        raise click.UsageError("--cohort needs --embeddings: scores alone can't be normalised")
    if options["subtract_mean"] and not options["cohort"]:
        raise click.UsageError("--subtract-mean needs --cohort, whose mean it is")
    if options["quality_trials"] and (
        not options["embeddings"] or options["calibration"] or options["calibrate_on"]
    ):
        raise click.UsageError("--quality-trials goes with --embeddings, and without another calibration")
    if options["calibration"] and options["calibrate_on"]:
        raise click.UsageError("give --calibration or --calibrate-on, not both")

    from speechbrain_bccmt.evaluation.report import (
        OperatingPoint,
        draw,
        evaluate_system,
        format_evaluation,
        write_results,
    )

    point = OperatingPoint(options["p_target"], options["c_miss"], options["c_fa"], options["far"])
    systems, trials, target, durations, calibrations = _systems(options, point)
    speakers, why_none = _speakers(trials, options["speakers"])
    calibrations |= _calibrations(options, systems, point)
    figures = {
        name: evaluate_system(
            scores, target, point, calibrations.get(name), speakers, options["resamples"], options["seed"]
        )
        for name, scores in systems.items()
    }
    results = {"systems": figures, "operating_point": vars(point)}
    text = format_evaluation(figures, point)
    if speakers is not None and options["resamples"] and len(systems) > 1:
        text += _differences(systems, target, speakers, point, options, results)
    if why_none and options["resamples"]:
        text += f"\n\nNo confidence intervals: {why_none}"
    if options["conditions"]:
        text += _by_condition(options["conditions"], systems, trials, target, point, results)
    if options["save_calibration"]:
        text += f"\n\nCalibration: {_save_calibration(options, systems, target, point)}"
    if options["output"]:
        folder = Path(options["output"])
        folder.mkdir(parents=True, exist_ok=True)
        title = Path(options["trials"] or _split(options["scores"][0])[1]).name
        draw(folder, systems, target, point, calibrations, title)
        if durations is not None:
            from speechbrain_bccmt.evaluation.plots import plot_eer_by_duration

            for suffix in (".png", ".svg"):
                plot_eer_by_duration(
                    systems, durations, target, folder / f"eer_by_duration{suffix}", title=title
                )
        write_results(folder / "results.json", results)
        text += f"\n\nResults and plots are in {folder}"
    n_target = int(target.sum())
    head = f"{len(target):,} trials: {n_target:,} target, {len(target) - n_target:,} non-target"
    click.echo(json.dumps(results) if options["as_json"] else f"{head}\n\n{text}")


def _split(argument: str) -> tuple[str | None, str]:
    """Split NAME=FILE; an existing file with the whole name is taken as that file, without a name."""
    name, separator, path = argument.partition("=")
    return (None, argument) if not separator or Path(argument).exists() else (name, path)


def _named(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Return names and files; the default name is the file's, with as many folders as needed to distinguish it."""
    split = [_split(argument) for argument in arguments]
    unnamed = {
        path: (*Path(path).absolute().parent.parts, Path(path).stem) for name, path in split if name is None
    }
    names = {}
    for path, own in unnamed.items():
        others, depth = [parts for parts in unnamed.values() if parts != own], 1
        while any(parts[-depth:] == own[-depth:] for parts in others):
            depth += 1
        names[path] = "/".join(own[-depth:])
    return [(names[path] if name is None else name, path) for name, path in split]


def _systems(options: dict, point):
    """Return each system's scores on the same trials, the trials, their labels, and the seconds of the shorter side."""
    from speechbrain_bccmt.trials.read import read_trials
    from speechbrain_bccmt.trials.scores import read_scores

    trials, calibrations = None, {}
    if options["trials"]:
        trials = read_trials(options["trials"], enrolment=options["enrolment"])
    systems, target, durations = {}, None if trials is None else trials.target, None
    for name, path in _named(options["scores"]):
        # Without a trial list, the first file sets the order for all.
        scored = read_scores(path, trials)
        trials = trials or scored.trials
        if target is not None and len(scored) != len(target):
            raise ValueError(
                f"{path} has {len(scored)} scores and the file before it {len(target)}: give --trials"
            )
        if trials is None and target is not None and (scored.target != target).any():
            raise ValueError(
                f"{path} and the file before it differ in labels, and name no trials: give --trials"
            )
        target = scored.target
        _add(systems, name, scored.scores)
    for name, path in _named(options["embeddings"]):
        found, durations, own = _score_embeddings(path, trials, options, point)
        for kind, scores in found.items():
            _add(systems, f"{name}, {kind}", scores)
        calibrations |= {f"{name}, {kind}": calibration for kind, calibration in own.items()}
    return systems, trials, target, durations, calibrations


def _add(systems: dict, name: str, scores) -> None:
    if name in systems:
        raise click.UsageError(f"two systems are called {name}: name them, such as --scores first={name}.txt")
    systems[name] = scores


def _score_embeddings(path: str, trials, options: dict, point):
    """Score trials by cosine, with a cohort also by s-norm, and with other trials also by quality-aware calibration."""
    import numpy as np

    from speechbrain_bccmt.inference.embedding_files import read_embeddings
    from speechbrain_bccmt.scoring.cohorts import subtract_mean
    from speechbrain_bccmt.scoring.cosine import cosine_scores
    from speechbrain_bccmt.scoring.norms import s_norm

    embeddings = read_embeddings(path)
    rows = embeddings.rows_of(trials.ids)
    sides = {"enrol": trials.enrol, "test": trials.test, "models": trials.models}
    vectors = embeddings.vectors[rows]
    cohort = read_embeddings(options["cohort"]).vectors if options["cohort"] else None
    if options["subtract_mean"]:
        vectors, cohort = subtract_mean(vectors, cohort), subtract_mean(cohort, cohort)
    found = {"cosine": cosine_scores(vectors, **sides)}
    if cohort is not None:
        found["s-norm"] = s_norm(found["cosine"], vectors, cohort=cohort, top_n=options["top_n"], **sides)
    durations = None
    if embeddings.seconds is not None:
        seconds = embeddings.seconds[rows]
        enrolled = seconds
        if trials.models is not None:
            enrolled = np.array([seconds[list(model.utterances)].sum() for model in trials.models])
        durations = np.minimum(enrolled[trials.enrol], seconds[trials.test])
    calibrations = {}
    if options["quality_trials"]:
        found["quality-aware"], calibrations = _calibrate_by_quality(
            embeddings, trials, found["cosine"], options, point
        )
    return (
        {name: np.asarray(scores, dtype=np.float64) for name, scores in found.items()},
        durations,
        calibrations,
    )


def _calibrate_by_quality(embeddings, trials, scores, options: dict, point):
    """Calibrate cosine scores on other trials, by themselves and with the quality of both sides.

    Returns the log-likelihood ratios with quality, and the calibrations of both systems.
    """
    from speechbrain_bccmt.scoring.calibration import Calibration
    from speechbrain_bccmt.scoring.cosine import cosine_scores
    from speechbrain_bccmt.scoring.quality import quality_measures
    from speechbrain_bccmt.scoring.quality_fusion import QualityFusion
    from speechbrain_bccmt.trials.read import read_trials

    if trials.models is not None:
        raise click.UsageError("--quality-trials calibrates trials between utterances, not models")
    other = read_trials(options["quality_trials"])
    measures = []
    for listed in (other, trials):
        rows = embeddings.rows_of(listed.ids)
        seconds = None if embeddings.seconds is None else embeddings.seconds[rows]
        measures.append(quality_measures(seconds, embeddings.vectors[rows]))
    pairs = other.enrol, other.test
    others = cosine_scores(embeddings.vectors[embeddings.rows_of(other.ids)], *pairs)
    fitted_on = Path(options["quality_trials"]).name
    fusion = QualityFusion.fit(others, other.target, *pairs, measures[0], **point.costs, fitted_on=fitted_on)
    alone = Calibration.fit(others[other.target], others[~other.target], **point.costs, fitted_on=fitted_on)
    llrs = fusion.llr(scores, trials.enrol, trials.test, measures[1])
    return llrs, {"cosine": alone, "quality-aware": Calibration(1.0, 0.0, **point.costs, fitted_on=fitted_on)}


def _speakers(trials, path: str | None):
    """Return the speakers of both sides of each trial, or None and the reason."""
    from speechbrain_bccmt.trials.trial_list import trial_speakers

    if trials is None:
        return None, "the score file does not name the trials."
    listed = None
    if path is not None:
        with open(path, encoding="utf-8") as file:
            pairs = [line.split() for line in file if line.strip()]
        if wrong := [number for number, pair in enumerate(pairs, 1) if len(pair) != 2]:
            raise ValueError(f"{path}:{wrong[0]}: expected `utterance speaker`")
        listed = dict(pairs)
    enrol, test = trial_speakers(trials, listed)
    if (enrol[trials.target] != test[trials.target]).any():
        if path is not None:
            raise ValueError(f"{path} names two speakers for a target trial")
        return None, "the ids do not begin with the speaker; give --speakers."
    return (enrol, test), ""


def _calibrations(options: dict, systems: dict, point) -> dict:
    """Return the calibration of the system, from a file or fitted on other trials."""
    from speechbrain_bccmt.scoring.calibration import Calibration
    from speechbrain_bccmt.trials.scores import read_scores

    if options["calibration"]:
        calibration = Calibration.load(options["calibration"])
    elif options["calibrate_on"]:
        other = read_scores(options["calibrate_on"])
        sides = other.scores[other.target], other.scores[~other.target]
        calibration = Calibration.fit(*sides, **point.costs, fitted_on=Path(options["calibrate_on"]).name)
    else:
        return {}
    if len(systems) > 1:
        raise click.UsageError("a calibration belongs to one system: evaluate one at a time")
    return dict.fromkeys(systems, calibration)


def _differences(systems: dict, target, speakers, point, options: dict, results: dict) -> str:
    """Compare each system with the first by paired resamples of the speakers."""
    from speechbrain_bccmt.evaluation.summary import align_columns
    from speechbrain_bccmt.scoring.bootstrap import difference_intervals

    (first, base), *others = systems.items()
    rows = [["system", "EER in %", "minDCF"]]
    for name, scores in others:
        found = difference_intervals(
            scores,
            base,
            target,
            *speakers,
            n_resamples=options["resamples"],
            seed=options["seed"],
            **point.costs,
        )
        results["systems"][name][f"difference_from_{first}"] = {
            key: list(value) for key, value in found.items()
        }
        cells = [
            f"{scale * d.point:+.{n}f} [{scale * d.low:+.{n}f}, {scale * d.high:+.{n}f}]"
            for d, scale, n in ((found["eer"], 100, 2), (found["min_dcf"], 1, 3))
        ]
        rows.append([name, *cells])
    title = (
        f"Difference from {first}, by paired resamples of the speakers: an interval without 0 is significant"
    )
    return f"\n\n{title}\n{align_columns(rows)}"


def _by_condition(path: str, systems: dict, trials, target, point, results: dict) -> str:
    from speechbrain_bccmt.evaluation.conditions import (
        format_condition_table,
        read_conditions,
        summarise_conditions,
    )

    if trials is None:
        raise ValueError(
            "--conditions needs trials with names: give --trials, or scores with the ids of both sides"
        )
    conditions, text = read_conditions(path, trials), ""
    for name, scores in systems.items():
        table = summarise_conditions(scores, target, conditions, **point.costs)
        results["systems"][name]["conditions"] = [
            {"condition": condition, "value": value, **row} for (condition, value), row in table.items()
        ]
        text += f"\n\n{name}\n{format_condition_table(table)}"
    return text


def _save_calibration(options: dict, systems: dict, target, point) -> str:
    from speechbrain_bccmt.scoring.calibration import Calibration

    if len(systems) > 1:
        raise click.UsageError("--save-calibration takes one system")
    (name, scores), path = next(iter(systems.items())), options["save_calibration"]
    fitted_on = Path(options["trials"] or name).name
    calibration = Calibration.fit(scores[target], scores[~target], **point.costs, fitted_on=fitted_on)
    calibration.save(path)
    return f"threshold {calibration.threshold:.4f} for {point.p_target:g}, {point.c_miss:g}, {point.c_fa:g}, in {path}"
