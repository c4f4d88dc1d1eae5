"""The README.md of a published model: what it is, how well it works, its uses, and its licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

NOT_STATED = "not stated by those who exported the model"

USE = """\
## Use

```bash
pip install speechbrain_bccmt
bccmt verify first.wav second.wav -m {model}
```

```python
from speechbrain_bccmt.inference.verification import SpeakerVerification

model = SpeakerVerification.from_hparams("{model}")
print(model.verify_files("first.wav", "second.wav"))
```

Plain SpeechBrain loads it too, with `speechbrain_bccmt` installed. It applies its own threshold of 0.25, which does not
fit this model, and scores one recording against one other:

```python
from speechbrain.inference.speaker import SpeakerRecognition

model = SpeakerRecognition.from_hparams(source="{model}")
score, _ = model.verify_files("first.wav", "second.wav")
```
"""

INTENDED = """\
## Intended use

Telling whether two recordings hold the same speaker, as research and in applications whose users know of it and have
agreed to it. A score is evidence, not proof: choose the threshold by the harm of each kind of error, on recordings
like your own. Not intended: to identify people without their consent, as sole ground of a decision about a person, or
as protection against replayed, converted or synthetic speech, which it was not trained to detect.

Error rates differ between languages, ages, microphones and lengths of recordings; those below hold for the named
trials alone.
"""


def write_model_card(
    path: Path,
    description: Mapping,
    calibration=None,
    examples: Sequence[str] = (),
    *,
    model: str = "path/to/this/folder",
    results: Mapping | None = None,
    test_set: str | None = None,
    data: str | None = None,
    licence: str | None = None,
    language: str | None = None,
) -> None:
    """Write a model card.

    Parameters
    ----------
    path : Path
        The file.
    description : mapping
        Content of the `config.json`.
    calibration : Calibration or QualityFusion, optional
        Calibration whose threshold the card states.
    examples : sequence of str
        Names of clips in the folder.
    model : str
        Hub id or name by which the card's examples load the model.
    results : mapping, optional
        From `speechbrain_bccmt.evaluation.summary.summarise`.
    test_set : str, optional
        The trials behind the results.
    data : str, optional
        What the model was trained on.
    licence : str, optional
        The hub's identifier of the parameters' licence, such as "cc-by-4.0".
    language : str, optional
        Language codes of the training data, separated by commas.
    """
    from huggingface_hub import EvalResult, ModelCardData

    name = description["architecture"]
    front_end = description["modules"]["compute_features"]["class"].rpartition(".")[2]
    front_matter = ModelCardData(
        language=[code.strip() for code in language.split(",")] if language else None,
        license=licence,
        library_name="speechbrain",
        tags=[
            "speechbrain",
            "speaker-verification",
            "speaker-recognition",
            "embeddings",
            "speechbrain_bccmt",
        ],
        metrics=["EER", "minDCF"] if results else None,
        model_name=name if results else None,
        eval_results=[
            EvalResult(
                task_type="speaker-verification",
                dataset_type=test_set or "unknown",
                dataset_name=test_set or NOT_STATED,
                metric_type=kind,
                metric_name=title,
                metric_value=value,
            )
            for kind, title, value in (
                ("eer", "EER (%)", round(100 * results["eer"], 2)),
                ("min_dcf", "minDCF (p_target 0.01)", round(results["min_dcf"], 4)),
            )
        ]
        if results
        else None,
    )
    # In text-dependent training a class is a phrase of a speaker.
    kind = (
        "speakers" if description["class_of"] == "speaker" else f"classes, each a {description['class_of']}"
    )
    number = description["training_classes"]
    classes = "" if number is None else f" ({number:,} {kind})"
    sections = [
        f"---\n{front_matter.to_yaml()}\n---\n",
        f"# Speaker verification with {name}\n\n"
        f"{description['parameters']:,} parameters; {description['sample_rate']} Hz, one channel; embeddings of size "
        f"{description['embedding_size']}; features: {front_end}, mean of each recording removed. "
        "Other sample rates and several channels are converted on loading.\n",
        USE.format(model=model),
        _threshold(calibration),
        INTENDED,
        _results(results, test_set, calibration),
        "## Data and licence\n\n"
        f"- Trained on: {data or NOT_STATED}{classes}.\n"
        f"- Licence of the parameters: {licence or NOT_STATED}.\n",
    ]
    clips = [f'<audio controls src="{clip}"></audio> [{clip}]({clip})\n' for clip in examples]
    sections.append("\n".join(["## Example clips\n", *(clips or ["None were given on export.\n"])]))
    path.write_text("\n".join(sections), encoding="utf-8")


def _threshold(calibration) -> str:
    if calibration is None:
        return (
            "## Threshold\n\nNone is shipped: fit one on trials of your own with `bccmt export hub --scores`, or give "
            "one at each call.\n"
        )
    calibration, knows_quality = calibration.at(), hasattr(calibration, "measures")
    varies = (
        " for the median recording, moving with length of speech and number of utterances" * knows_quality
    )
    return (
        "## Threshold\n\n`calibration.json` turns a cosine score into a probability. At and above its threshold, "
        f"{calibration.threshold:.4f}{varies}, the speaker is taken to be the same. It was fitted on "
        f"{calibration.fitted_on or 'trials whose name was not kept'} ({calibration.n_target:,} target and "
        f"{calibration.n_nontarget:,} non-target trials) for a prior of {calibration.p_target:g}, a cost of "
        f"{calibration.c_miss:g} for a miss and {calibration.c_fa:g} for a false alarm.\n"
    )


def _results(results: Mapping | None, test_set: str | None, calibration) -> str:
    if not results:
        return "## Results\n\nNone were given on export.\n"
    note = (
        "\nThe threshold was fitted on these very trials. EER and minDCF do not depend on it, but expect decisions on "
        "other recordings to be worse.\n"
        if calibration is not None and calibration.fitted_on == test_set
        else ""
    )
    return (
        "## Results\n\n"
        "| trials | target | non-target | EER % | minDCF (0.01) |\n|---|---|---|---|---|\n"
        f"| {test_set or NOT_STATED} | {results['n_target']:,} | {results['n_nontarget']:,} | "
        f"{100 * results['eer']:.2f} | {results['min_dcf']:.4f} |\n{note}"
    )
