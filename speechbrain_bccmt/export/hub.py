"""Export of a training's output folder to a folder that others can use, and its upload to the HuggingFace hub."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from speechbrain.utils.checkpoints import hook_on_loading_state_dict_checkpoint
from speechbrain.utils.logger import get_logger

from speechbrain_bccmt.audio.recording import Recording
from speechbrain_bccmt.export.model_card import write_model_card
from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.inference.architecture import NEEDED, to_yaml
from speechbrain_bccmt.inference.embedding import embed_waveforms
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.model_files import (
    CALIBRATION_FILE,
    CENTRED_CALIBRATION_FILE,
    CONFIG_FILE,
    GRAPH_FILE,
    HPARAMS_FILE,
    OPEN_SET_FILE,
    PHRASE_FILE,
    SEQUENTIAL_FILE,
    find_file,
    hub_errors,
)
from speechbrain_bccmt.inference.model_folder import SpeakerModel, load_speaker_model
from speechbrain_bccmt.inference.parameters import find_checkpoint_file, read_labels, read_parameters
from speechbrain_bccmt.models import resolve_model
from speechbrain_bccmt.profiling import count_parameters
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion
from speechbrain_bccmt.sessions import load_session

logger = get_logger(__name__)

# Lowest cosine between the graph's and the network's embedding of noise at which the graph counts as the network's.
SAME = 0.9999
# SpeechBrain's default, for a YAML without one, is for 16 kHz.
NORMALIZER = """
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
  sample_rate: !ref <sample_rate>
"""

# Files that an export may write besides its YAML.
WRITTEN = (
    "embedding_model.*",
    "classifier.*",
    "mean_var_norm.ckpt",
    "label_encoder.*",
    CALIBRATION_FILE,
    CENTRED_CALIBRATION_FILE,
    SEQUENTIAL_FILE,
    OPEN_SET_FILE,
    PHRASE_FILE,
    CONFIG_FILE,
    GRAPH_FILE,
    "README.md",
    "example[0-9]*.*",
)
EXAMPLE_FORMATS = (".wav", ".flac", ".ogg", ".opus", ".mp3")

LABEL_ENCODER = "\nlabel_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder"
CLASSIFIER = "speechbrain.lobes.models.ECAPA_TDNN.Classifier"

HPARAMS = """\
# Speaker verification with {name}, made by `bccmt export hub`. Needs the package speechbrain_bccmt. Holds no
# hub id: all files are looked for beside this one.

sample_rate: {sample_rate}
embedding_size: {embedding_size}

{network}
{normalizer}
modules:
  compute_features: !ref <compute_features>
  mean_var_norm: !ref <mean_var_norm>
  embedding_model: !ref <embedding_model>
{classified}
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
{loadables}
"""


def export_hub(
    training_folder: str | Path,
    output_folder: str | Path,
    calibration: Calibration | QualityFusion | None = None,
    card: dict | None = None,
    examples: Sequence[str | Path] = (),
    overwrite: bool = False,
    centre: np.ndarray | None = None,
) -> Path:
    """Write a hub folder, which SpeechBrain's `SpeakerRecognition` and this package's interface load.

    Parameters
    ----------
    training_folder : str or Path
        The output folder of a training, or another model; the checkpoint with the lowest dev EER is used.
        Without a label encoder, no classifier is published.
    output_folder : str or Path
        Where to write; created.
    calibration : Calibration or QualityFusion, optional
        Maps score to probability, with the threshold; stored as `calibration.json`. By default the model's own, with
        the files fitted with it: `calibration_centred.json`, `sequential.json` and `open_set.json`.
    card : dict, optional
        Content of the model card, see `write_model_card`.
    examples : sequence of str or Path
        Recordings that may be published with the model; stored as `example1.wav` and so on.
    overwrite : bool
        Replace the files of an earlier export.
    centre : numpy.ndarray, optional
        (D,), subtracted from every embedding, see `inference.domain`; then no classifier is published.

    Returns
    -------
    Path
        The output folder. It is complete as soon as it holds `hyperparams.yaml`.

    Raises
    ------
    FileExistsError
        If the output folder has files in it and `overwrite` is False.
    FileNotFoundError
        If the training folder lacks a file, or an example does not exist.
    ValueError
        If files of the training folder do not match, an example has an unknown format or is not audio, or the network
        has no last layer to subtract a centre in.

    Notes
    -----
    `waveform.onnx`, which runs the model without PyTorch, is left out, with a warning, if the package onnx is not
    installed or the network cannot be exported.

    A classifier trained with sped-up copies of its speakers as additional classes loses those: every remaining class
    has its name in the label encoder.
    """
    training_folder, output_folder = resolve_model(training_folder), Path(output_folder)
    check_output(output_folder, overwrite)
    _check_examples(examples)
    model = load_speaker_model(training_folder)
    fitted = [] if calibration else [CENTRED_CALIBRATION_FILE, SEQUENTIAL_FILE, OPEN_SET_FILE]
    if centre is not None:
        # Its calibrated ratios mean the same. It is centred now and must not be centred again.
        fitted = [SEQUENTIAL_FILE, OPEN_SET_FILE]
    calibration = calibration or model.calibration
    # If voice and phrase are two parts, the training's classes are pairs, which no classifier knows.
    pairs = hasattr(model.embedding_model, "voice_size")
    labels = None if pairs or centre is not None else read_labels(training_folder, needed=False)
    states = {"embedding_model": _load_state(training_folder, "embedding_model")}
    if centre is not None:
        _take_off(model, states["embedding_model"], centre)
    if labels is not None:
        classifier = _load_state(training_folder, "classifier")
        states["classifier"] = {"weight": _labelled_classes(classifier["weight"], len(labels))}

    output_folder.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(output_folder) as folder:
        for name, state in states.items():
            stream = io.BytesIO()  # torch's own writer hides a full disk behind another error
            torch.save(state, stream)
            (folder / f"{name}.ckpt").write_bytes(stream.getvalue())
            tensors = {key: value.contiguous() for key, value in state.items()}
            (folder / f"{name}.safetensors").write_bytes(safetensors.torch.save(tensors))
        stateful = [*states, *(["label_encoder"] if labels is not None else [])]
        if getattr(model.mean_var_norm, "norm_type", None) == "global":
            stateful.append("mean_var_norm")
            shutil.copyfile(
                find_checkpoint_file(training_folder, "mean_var_norm"), folder / "mean_var_norm.ckpt"
            )
        # SpeechBrain looks for <name>.ckpt; users, and a training that continues from here, look for the text file.
        for ending in (".txt", ".ckpt") if labels is not None else ():
            labels.save(folder / f"label_encoder{ending}")
        if calibration is not None:
            calibration.save(folder / CALIBRATION_FILE)
        for name in fitted:
            if path := find_file(training_folder, name, needed=False):
                shutil.copyfile(path, folder / name)
        if model.phrase_fusion is not None:
            model.phrase_fusion.save(folder / PHRASE_FILE)
        graph = write_graph(model, folder / GRAPH_FILE)
        clips = []
        for number, example in enumerate(examples, 1):
            clips.append(f"example{number}{Path(example).suffix.lower()}")
            shutil.copyfile(example, folder / clips[-1])
        description = _describe(model, None if labels is None else len(labels), calibration)
        if graph:
            description["sha256"] = {GRAPH_FILE: hashlib.sha256(graph.read_bytes()).hexdigest()}
        (folder / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        write_model_card(folder / "README.md", description, calibration, clips, **(card or {}))
        text = HPARAMS.format(
            name=description["architecture"],
            sample_rate=model.sample_rate,
            embedding_size=model.embedding_size,
            network="\n".join(f"{name}: {to_yaml(part)}" for name, part in description["modules"].items())
            + ("" if labels is None else LABEL_ENCODER),
            normalizer="" if model.sample_rate == 16000 else NORMALIZER,
            classified="" if labels is None else "  classifier: !ref <classifier>\n",
            loadables="\n".join(f"    {name}: !ref <{name}>" for name in stateful),
        )
        (folder / HPARAMS_FILE).write_text(text, encoding="utf-8")
    return output_folder


def check_output(folder: Path, overwrite: bool) -> None:
    """Raise FileExistsError if a folder contains files that may not be replaced."""
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} is not empty: give another folder, or allow to overwrite it (--overwrite)")


def _take_off(model: SpeakerModel, state: dict[str, torch.Tensor], centre: np.ndarray) -> None:
    """Subtract a centre from the embeddings of a network and of its parameters, in the bias of the last layer."""
    name = "embedding.bias"
    if name not in state or state[name].shape != centre.shape:
        kind = type(model.embedding_model).__name__
        raise ValueError(
            f"a centre of size {len(centre)} cannot be taken off {kind}: it is no BCCMT with such embeddings"
        )
    state[name] = state[name] - torch.from_numpy(centre).to(state[name])
    model.embedding_model.load_state_dict(state)


def write_graph(model: SpeakerModel, path: Path) -> Path | None:
    """Write the waveform graph of a model, which runs it without PyTorch.

    Parameters
    ----------
    model : SpeakerModel
        The model.
    path : Path
        The file; replaced if it exists.

    Returns
    -------
    Path or None
        `path`; None, after a warning, if the package onnx is not installed, the network cannot be exported, or the
        exported graph does not match the model.
    """
    noise = 0.1 * torch.randn(1, 3 * model.sample_rate // 2, generator=torch.Generator().manual_seed(0))
    try:
        export_onnx(model, path, "waveform")
        (found,) = load_session(path, threads=1).run(None, {"waveform": noise.numpy()})[0]
        expected = embed_waveforms(list(noise), **model.modules)[0]
        if torch.cosine_similarity(torch.from_numpy(found), expected, dim=0) < SAME:
            raise ValueError("it does not give the model's own embedding")
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:200]
        logger.warning(f"no {path.name} is published, so that the model needs PyTorch: {reason}")
        return None
    return path


def push_to_hub(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Upload a hub folder.

    Parameters
    ----------
    folder : str or Path
        Folder written by `export_hub`.
    repo_id : str
        `owner/model`; created if it does not exist.
    private : bool
        Whether a new repository is private.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    FileNotFoundError
        If the folder is not a hub folder.
    ValueError
        If the id is invalid.
    OSError
        If the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    if not (Path(folder) / HPARAMS_FILE).is_file():
        raise FileNotFoundError(f"no {HPARAMS_FILE} in {folder}: it is not a hub folder")
    api = HfApi()
    try:
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            commit_message="Upload a speaker verification model",
            ignore_patterns=[".*"],
        )
    except HFValidationError as error:
        raise ValueError(f"'{repo_id}' is no hub id: expected owner/model ({error})") from error
    except (*hub_errors(), LocalTokenNotFoundError) as error:
        reason = " ".join(str(error).split())
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, LocalTokenNotFoundError) or status in (401, 403):
            reason += ". Log in with `hf auth login`, or set HF_TOKEN"
        raise OSError(f"{folder} could not be uploaded to '{repo_id}': {reason}") from error
    return str(commit.commit_url)


def _check_examples(examples: Sequence[str | Path]) -> None:
    for example in examples:
        if not Path(example).is_file():
            raise FileNotFoundError(f"no example recording at {example}")
        if Path(example).suffix.lower() not in EXAMPLE_FORMATS:
            raise ValueError(f"the example {example} is none of {', '.join(EXAMPLE_FORMATS)}")
        Recording.open(example)


def _load_state(training_folder: Path, name: str) -> dict[str, torch.Tensor]:
    return hook_on_loading_state_dict_checkpoint(read_parameters(find_checkpoint_file(training_folder, name)))


def _labelled_classes(weight: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Keep the classes of speakers at original speed, which come first."""
    if len(weight) % n_classes:
        raise ValueError(f"the classifier has {len(weight)} classes, but the label encoder names {n_classes}")
    return weight[:n_classes].clone()


def _describe(
    model: SpeakerModel, n_classes: int | None, calibration: Calibration | QualityFusion | None
) -> dict:
    modules = {name: model.architecture[name] for name in NEEDED}
    if n_classes is not None:
        options = {"input_size": model.embedding_size, "out_neurons": n_classes}
        modules["classifier"] = {"class": CLASSIFIER, "options": options}
    return {
        "speechbrain_interface": "SpeakerRecognition",
        "library": "speechbrain_bccmt",
        "architecture": type(model.embedding_model).__name__,
        "modules": modules,
        "sample_rate": model.sample_rate,
        "embedding_size": model.embedding_size,
        "parameters": count_parameters(model.embedding_model),
        "training_classes": n_classes,
        "class_of": model.architecture.get("class_of", "speaker"),
        "threshold": None if calibration is None else calibration.at().threshold,
        "fingerprint": fingerprint(model.modules),
    }


@contextlib.contextmanager
def _replacing(output_folder: Path):
    """Yield a temporary folder, then replace an earlier export's files with its files, the YAML last."""
    with tempfile.TemporaryDirectory(dir=output_folder.parent, prefix=f".{output_folder.name}-") as temporary:
        folder = Path(temporary)
        yield folder
        output_folder.mkdir(exist_ok=True)
        (output_folder / HPARAMS_FILE).unlink(missing_ok=True)
        # Another model's threshold, and voices not meant to be published, must not stay beside this one.
        for pattern in WRITTEN:
            for path in output_folder.glob(pattern):
                path.unlink()
        for path in sorted(folder.iterdir(), key=lambda path: path.name == HPARAMS_FILE):
            os.replace(path, output_folder / path.name)
