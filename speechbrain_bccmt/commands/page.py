"""A local web page that compares two recordings: score, decision, and attention maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechbrain_bccmt.attention.clip_attention import attend_to_clip, has_attention

if TYPE_CHECKING:
    from speechbrain_bccmt.inference.verification import SpeakerVerification

LABELS = ("First clip", "Second clip")
# On a phone a plot as wide as the page is too small to read: there it scrolls sideways.
STYLE = """
@media (max-width: 700px) {
    .picture { overflow-x: auto !important }
    .picture .layout { align-items: flex-start }
    .picture img { width: 60rem; max-width: none }
}
"""


def build_page(model: SpeakerVerification):
    """Build the page, a `gradio.Blocks` whose `launch` serves it.

    Without a calibration of its own the model starts at a threshold of 0.5, and the page says so. Raises ImportError if
    gradio is not installed.
    """
    gradio = _import_gradio()

    def show(text, figures=(None, None)):
        plots = [gradio.Plot(figure, visible=figure is not None) for figure in figures]
        return text, *plots

    def compare(first, second, threshold):
        if not first or not second:
            return show("## No comparison\n\nRecord or upload a clip on both sides.")
        if threshold is None:
            return show("## No comparison\n\nThe threshold is empty.")
        try:
            # An untouched slider leaves the threshold to the calibration, which knows the length of the clips.
            verdict = model.verify_files(first, second, None if threshold == shipped else threshold)
            figures = [
                attend_to_clip(model, path).draw(label) if has_attention(model) else None
                for path, label in zip((first, second), LABELS, strict=True)
            ]
        except (OSError, ValueError) as error:
            # The uploaded copies have long names that the user has never seen.
            text = str(error)
            for path, label in zip((first, second), LABELS, strict=True):
                text = text.replace(path, label)
            return show(f"## No comparison\n\n{text.rstrip('.')}.")
        return show(describe(verdict), figures)

    shipped = model.threshold
    # System fonts: the page must look the same without a network.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    with gradio.Blocks(title="Same speaker?", analytics_enabled=False) as page:
        page.theme, page.css = theme, STYLE
        gradio.Markdown(
            f"# Same speaker?\n{Path(model.source).name or 'Model'}, running on this machine only."
        )
        with gradio.Row():
            clips = [
                gradio.Audio(
                    label=label, sources=["upload", "microphone"], type="filepath", buttons=["download"]
                )
                for label in LABELS
            ]
        threshold = gradio.Slider(
            -1,
            1,
            value=0.5 if shipped is None else shipped,
            step=0.001,
            label="Threshold",
            info="The model ships no threshold: 0.5 is a guess."
            if shipped is None
            else "Shipped with the model.",
        )
        button = gradio.Button("Compare", variant="primary")
        result = gradio.Markdown(elem_id="result")
        figures = [
            gradio.Plot(show_label=False, format="png", visible=False, elem_classes="picture") for _ in LABELS
        ]
        button.click(compare, [*clips, threshold], [result, *figures], api_name="compare")
        for clip in clips:  # a decision must not outlive its clips
            clip.change(
                lambda: show(""), None, [result, *figures], show_progress="hidden", api_visibility="private"
            )
    return page


def describe(verdict) -> str:
    """Describe a `Verification` in Markdown: the decision, the score, and warnings about the recordings."""
    lines = [f"## {'Same speaker' if verdict.decision else 'Different speakers'}"]
    text = f"Score **{float(verdict.score):.3f}**, threshold {verdict.threshold:.3f}"
    if verdict.probability == verdict.probability:
        text += f", probability of the same speaker {verdict.probability:.1%}"
    lines.append(text + ".")
    for label, utterance in zip(LABELS, verdict.utterances, strict=True):
        lines += [f"{label}: {text.removeprefix(f'{utterance.path}: ')}." for text in utterance.warnings]
    return "\n\n".join(lines)


def _import_gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the page needs gradio: pip install 'speechbrain_bccmt[page]'") from error
    return gradio
