"""A local web page that compares two recordings: score, decision, and where the model looks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speechbrain_bccmt.attention_plots import draw_attention_maps
from speechbrain_bccmt.audio import read_mono
from speechbrain_bccmt.clip_attention import DRAWN_SECONDS, attend_to_clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from speechbrain_bccmt.inference import SpeakerVerification

LABELS = ("First clip", "Second clip")


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

    def compare(first, second, threshold):
        if not first or not second:
            raise gradio.Error("Record or upload a clip on both sides.", print_exception=False)
        try:
            outcome = model.verify_files(first, second, threshold)
            pairs = zip((first, second), LABELS, strict=True)
            figures = [
                draw_attention(model, path, f"{label}: where the model looks") for path, label in pairs
            ]
        except (OSError, ValueError) as error:
            # The page's own copies have long names that say nothing to whoever made the recording.
            names = {first: "first clip", second: "second clip"}
            text = str(error)
            for path, name in names.items():
                text = text.replace(path, name)
            raise gradio.Error(text, print_exception=False) from error
        return describe(outcome), *figures

    shipped = model.threshold
    # System fonts: the page must look the same without a network.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    with gradio.Blocks(title="Who speaks?", analytics_enabled=False) as page:
        page.theme = theme
        gradio.Markdown(
            f"# Same speaker?\n{Path(model.source).name or 'Model'}, running on this machine only."
        )
        with gradio.Row():
            clips = [
                gradio.Audio(label=label, sources=["upload", "microphone"], type="filepath")
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
        figures = [gradio.Plot(show_label=False, format="png") for _ in LABELS]
        button.click(compare, [*clips, threshold], [result, *figures], api_name="compare")
    return page


def describe(outcome) -> str:
    """Write an outcome as Markdown: the decision, the score, and what was found about the recordings."""
    lines = [f"## {'Same speaker' if outcome.decision else 'Different speakers'}"]
    text = f"Score **{float(outcome.score):.3f}**, threshold {outcome.threshold:.3f}"
    if outcome.probability == outcome.probability:
        text += f", probability of the same speaker {outcome.probability:.1%}"
    lines.append(text + ".")
    # Of a warning on a file, only what it says: the page's copies have names that nobody gave.
    lines += [f"Note: {warning.split(': ', 1)[-1]}." for warning in outcome.warnings]
    return "\n\n".join(lines)


@torch.inference_mode()
def draw_attention(model: SpeakerVerification, path: str | os.PathLike, title: str = "") -> Figure | None:
    """Draw the attention maps of one recording, a column for each block; or what the tokens of a model attend to.

    Parameters
    ----------
    model : SpeakerVerification
        The trained model.
    path : str or Path
        The recording; of a long one, its first `DRAWN_SECONDS`.
    title : str
        Title of the picture.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where the encoder gives no maps.
    """
    encoder = model.mods.embedding_model
    if not hasattr(encoder, "forward_with_attention"):
        return None
    if getattr(encoder, "token_names", ()):
        return attend_to_clip(model, path).draw(title)
    wav = read_mono(path, model.sample_rate)[: int(DRAWN_SECONDS * model.sample_rate)].to(model.device)
    features = model.mods.mean_var_norm(
        model.mods.compute_features(wav[None]), torch.ones(1, device=wav.device)
    )
    maps = encoder.forward_with_attention(features)[1]
    blocks = {f"block {index + 1}": [weights] for index, weights in enumerate(maps)}
    return draw_attention_maps(
        blocks, seconds=len(wav) / model.sample_rate, row_titles=["mean of heads"], title=title
    )


def _import_gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the page needs gradio: pip install 'speechbrain_bccmt[page]'") from error
    return gradio
