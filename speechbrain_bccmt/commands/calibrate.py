"""`bccmt calibrate`: fit a threshold on recordings of your own speakers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs

# With fewer, the threshold fits only a few voices; with more errors, no threshold is useful.
MIN_SPEAKERS, MIN_TARGET_TRIALS, MAX_EER = 5, 20, 0.2


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@inputs.model_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: the calibration as JSON, for `bccmt export hub --calibration`.",
)
@click.option(
    "--p-target",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Prior of a target trial that the threshold is for. Default: the model's own, or 0.01.",
)
@click.option(
    "--utterances",
    type=click.IntRange(min=2),
    default=20,
    show_default=True,
    help="Maximum number of recordings per speaker, so that no speaker outweighs the others.",
)
@inputs.json_option
@inputs.vad_option
@inputs.device_option
@inputs.engine_option
@inputs.quiet_option
def calibrate(folder, model, output, p_target, utterances, as_json, vad, device, engine, quiet):
    """Fit a threshold on recordings of your own speakers.

    FOLDER holds one folder of recordings per speaker. All pairs of recordings are scored; the new calibration is shown
    next to the model's own, with the errors that each makes on these pairs. The effect of the length and number of
    recordings is kept from the model.

    Too few speakers or recordings, or scores that overlap too much, are refused with exit code 2.
    """
    import numpy as np

    from speechbrain_bccmt.scoring import Calibration, act_dcf, cosine_scores, equal_error_rate
    from speechbrain_bccmt.scoring.quality import quality_measures
    from speechbrain_bccmt.scoring.quality_fusion import QualityFusion

    paths, speakers = _recordings(folder, utterances)
    verification = inputs.load_model(model, device, vad, engine)
    embed = verification.embed_file
    found, kept = [], []
    for (_, utterance), speaker in zip(
        inputs.run_each(embed, paths, "Embedding", quiet, skip_errors=True), speakers, strict=True
    ):
        if utterance is not None and utterance.speech_seconds:
            found.append(utterance)
            kept.append(speaker)
        elif utterance is not None:
            click.echo(f"error: {utterance.warnings[0]}: left out", err=True)
    names, labels = np.unique(kept, return_inverse=True)
    enrol, test = np.triu_indices(len(found), 1)
    target = labels[enrol] == labels[test]
    if len(names) < MIN_SPEAKERS or target.sum() < MIN_TARGET_TRIALS:
        raise ValueError(
            f"{folder} has {len(found)} usable recordings of {len(names)} speakers, which make {target.sum()} target "
            f"trials: a threshold needs {MIN_SPEAKERS} speakers and {MIN_TARGET_TRIALS} target trials at least; "
            "record more"
        )
    scores = np.asarray(
        cosine_scores(np.stack([one.embedding for one in found]), enrol, test), dtype=np.float64
    )
    eer, _ = equal_error_rate(scores[target], scores[~target])
    if eer > MAX_EER:
        raise ValueError(
            f"{folder}: the scores of the same and of different speakers overlap, EER {100 * eer:.1f} %, more than "
            f"{100 * MAX_EER:g} %: no threshold tells these speakers apart. Look for recordings in the wrong folder, "
            "for noise, and for recordings of less than a second"
        )
    measures = quality_measures(
        [one.speech_seconds for one in found],
        counts=np.ones(len(found)),
        bandwidths=[one.bandwidth for one in found],
    )
    own = verification.calibration
    if own is not None and p_target is not None:
        own = replace(own, **_at_prior(own, p_target))
    if isinstance(own, QualityFusion):
        new = own.refit(scores, target, enrol, test, measures, folder.name)
    else:
        prior = p_target or (0.01 if own is None else own.p_target)
        new = Calibration.fit(scores[target], scores[~target], prior, fitted_on=folder.name)
    if output is not None:
        new.save(output)
    rows = {}
    for name, calibration in (("model", own), ("new", new)):
        if calibration is None:
            continue
        affine = calibration.at()
        llrs = (
            calibration.llr(scores, enrol, test, measures)
            if calibration is not affine
            else affine.llr(scores)
        )
        costs = {"p_target": affine.p_target, "c_miss": affine.c_miss, "c_fa": affine.c_fa}
        rows[name] = {
            "threshold": round(affine.threshold, 6),
            "misses": round(float((llrs[target] < affine.llr_threshold).mean()), 6),
            "false_alarms": round(float((llrs[~target] >= affine.llr_threshold).mean()), 6),
            "act_dcf": round(float(act_dcf(llrs[target], llrs[~target], **costs)), 6),
        }
    result = {
        "speakers": len(names),
        "recordings": len(found),
        "target_trials": int(target.sum()),
        "nontarget_trials": int((~target).sum()),
        "eer": round(float(eer), 6),
        "p_target": new.at().p_target,
        **rows,
    }
    click.echo(json.dumps(result) if as_json else _table(result, model, output))
    click.get_current_context().exit(2 if len(found) < len(paths) else 0)


def _recordings(folder: Path, most: int) -> tuple[list[str], list[str]]:
    """Return the recordings, at most `most` per speaker, spread evenly, and the speaker of each."""
    from speechbrain_bccmt.audio.folders import find_recordings

    paths, speakers = [], []
    for speaker in sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    ):
        try:
            found = find_recordings(speaker)
        except FileNotFoundError:
            continue
        count = min(most, len(found))
        paths += [found[index * len(found) // count] for index in range(count)]
        speakers += [speaker.name] * count
    if not paths:
        raise ValueError(f"{folder} holds no folder of recordings for each speaker")
    return paths, speakers


def _at_prior(calibration, p_target: float) -> dict:
    """Return the field of a calibration that holds its prior, with a new prior."""
    if hasattr(calibration, "measures"):
        return {"calibration": replace(calibration.calibration, p_target=p_target)}
    return {"p_target": p_target}


def _table(result: dict, model: str, output: Path | None) -> str:
    lines = [
        f"{result['speakers']} speakers, {result['recordings']} recordings: {result['target_trials']:,} target and "
        f"{result['nontarget_trials']:,} non-target trials, EER {100 * result['eer']:.2f} %",
        "",
        f"{'at ' + format(100 * result['p_target'], 'g') + ' % target trials':<24}"
        + "".join(f"{name:>10}" for name in ("model", "new") if name in result),
    ]
    for title, key, factor, digits in (
        ("threshold", "threshold", 1, 4),
        ("misses, %", "misses", 100, 2),
        ("false alarms, %", "false_alarms", 100, 3),
        ("cost (actDCF)", "act_dcf", 1, 4),
    ):
        values = [result[name][key] for name in ("model", "new") if name in result]
        lines.append(f"{title:<24}" + "".join(f"{factor * value:>10.{digits}f}" for value in values))
    lines.append("")
    if output is None:
        lines.append("Nothing is written: -o calibration.json does, and --threshold takes the new one.")
    else:
        lines.append(f"Wrote {output}: bccmt export hub FOLDER -m {model} --calibration {output}")
    return "\n".join(lines)
