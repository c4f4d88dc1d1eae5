"""A local web page that compares two recordings: score, decision, and attention maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechbrain_bccmt.attention.clip_attention import attend_to_clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from speechbrain_bccmt.inference.verification import SpeakerVerification

LABELS = ("First clip", "Second clip")
# On a telephone a plot as wide as the page is too small to read: there it scrolls sideways.
STYLE = """
@media (max-width: 700px) {
    .picture { overflow-x: auto !important }
    .picture .layout { align-items: flex-start }
    .picture img { width: 60rem; max-width: none }
}
"""


def build_page(model: SpeakerVerification):
    """Build the page; nothing is served yet.

    Parameters
    ----------
    model : SpeakerVerification
        The trained model. Without a calibration of its own the page starts at a threshold of 0.5, and says so.

    Returns
    -------
    gradio.Blocks
        Call its `launch`.

    Raises
    ------
    ImportError
        If gradio is not installed.
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
            outcome = model.verify_files(first, second, threshold)
            figures = [
                draw_attention(model, path, label)
                for path, label in zip((first, second), LABELS, strict=True)
            ]
        except (OSError, ValueError) as error:
            # The page's own copies have long names that say nothing to whoever made the recording.
            text = str(error)
            for path, label in zip((first, second), LABELS, strict=True):
                text = text.replace(path, label)
            return show(f"## No comparison\n\n{text.rstrip('.')}.")
        return show(describe(outcome), figures)

    shipped = model.threshold
    # System fonts: the page must look the same without a network.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    with gradio.Blocks(title="Who speaks?", analytics_enabled=False) as page:
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
        for clip in clips:  # or an earlier decision would stand beside other clips
            clip.change(
                lambda: show(""), None, [result, *figures], show_progress="hidden", api_visibility="private"
            )
    return page


def describe(outcome) -> str:
    """Write an outcome as Markdown: the decision, the score, and what was found about the recordings."""
    lines = [f"## {'Same speaker' if outcome.decision else 'Different speakers'}"]
    text = f"Score **{float(outcome.score):.3f}**, threshold {outcome.threshold:.3f}"
    if outcome.probability == outcome.probability:
        text += f", probability of the same speaker {outcome.probability:.1%}"
    lines.append(text + ".")
    for label, utterance in zip(LABELS, outcome.utterances, strict=True):
        # The page's copies have names that nobody gave.
        lines += [f"{label}: {text.removeprefix(f'{utterance.path}: ')}." for text in utterance.warnings]
    return "\n\n".join(lines)


def draw_attention(model: SpeakerVerification, path: str, title: str) -> Figure | None:
    """Plot what the model attends to in a recording, as `bccmt attention` does; None where it has no attention."""
    encoder = model.mods.embedding_model
    if not hasattr(encoder, "forward_with_attention"):
        return None
    return attend_to_clip(model, path).draw(title)


def _import_gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the page needs gradio: pip install 'speechbrain_bccmt[page]'") from error
    return gradio
