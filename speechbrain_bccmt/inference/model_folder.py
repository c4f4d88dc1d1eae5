"""Loads a trained model, whole and safely, from a hub folder, the output of a training, or a hub id."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import nn

from speechbrain_bccmt.inference.parameters import HUB_ID, fetch_from_hub, load_pretrained
from speechbrain_bccmt.inference.yaml_safety import build_yaml, check_references, is_trusted
from speechbrain_bccmt.scoring.calibration import Calibration

CALIBRATION_FILE = "calibration.json"
NEEDED = ("compute_features", "mean_var_norm", "embedding_model")


def load_parts(
    source: str | Path,
    hparams_file: str = "hyperparams.yaml",
    overrides: dict | str | None = None,
    overrides_must_match: bool = True,
    savedir: str | Path | None = None,
    trust_code: bool | None = None,
) -> dict:
    """Load what `SpeakerVerification` is made of.

    Parameters
    ----------
    source : str or Path
        A hub folder, the output folder of a training, or a HuggingFace hub id (owner/model).
    hparams_file : str
        Name of its YAML.
    overrides : dict, str or None
        Values to replace in the YAML of a hub folder.
    overrides_must_match : bool
        Whether each of them must name a key of the YAML.
    savedir : str, Path or None
        Where SpeechBrain puts links to the files; None: nowhere.
    trust_code : bool or None
        True builds whatever the YAML names, which can run any code; False refuses what is no network. None asks
        the environment variable BCCMT_TRUST_CODE.

    Returns
    -------
    dict
        `modules` and `hparams` for SpeechBrain's interfaces, and `calibration`, a `Calibration` or None.

    Raises
    ------
    OSError
        If there is no model, or a file of it cannot be read.
    ValueError
        If a file is damaged or does not fit, or would run code on loading.
    """
    trust_code = is_trusted(trust_code)
    path = _find(source, hparams_file)
    text = _read(path)
    if not trust_code:
        check_references(text, str(path))
    if _is_training(text, path):
        hparams = _load_training(source, trust_code)
    else:
        hparams = build_yaml(text, str(path), trust_code, overrides, overrides_must_match)
        _load_hub_folder(source, path, hparams, savedir)
    calibration_file = _find(source, CALIBRATION_FILE, needed=False)
    calibration = None if calibration_file is None else Calibration.load(calibration_file)
    return {"modules": hparams["modules"], "hparams": hparams, "calibration": calibration}


def _find(source: str | Path, name: str, needed: bool = True) -> Path | None:
    """Tell where a file of the model is, on this machine."""
    folder = Path(source)
    if not folder.exists() and HUB_ID.fullmatch(str(source)):
        try:
            return fetch_from_hub(str(source), name)
        except FileNotFoundError:
            if needed:
                raise
            return None
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no model at '{source}': it is neither a folder nor a HuggingFace hub id ('owner/model')"
        )
    if (folder / name).is_file():
        return folder / name
    if needed:
        raise FileNotFoundError(
            f"no model in '{source}': it has no {name}; expected a hub folder, or the output folder of a training"
        )
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}") from error


def _is_training(text: str, path: Path) -> bool:
    """Tell the YAML of a training from that of a hub folder, which says how to load it."""
    try:
        nodes = YAML().load(text)
    except YAMLError as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    missing = [key for key in NEEDED if not isinstance(nodes, dict) or key not in nodes]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it does not describe a speaker model")
    return "pretrainer" not in nodes


def _load_training(source: str | Path, trust_code: bool) -> dict:
    from speechbrain_bccmt.inference.source import load_speaker_model

    model = load_speaker_model(source, trust_code)
    modules = {name: getattr(model, name) for name in NEEDED}
    return modules | {"modules": modules}


def _load_hub_folder(source, path: Path, hparams: dict, savedir) -> None:
    """Load the parameters and the speakers' names of a hub folder into what its YAML describes."""
    try:
        pretrainer, modules = hparams["pretrainer"], hparams["modules"]
        pretrainer.set_collect_in(savedir)
        encoders = {
            name: part for name, part in pretrainer.loadables.items() if isinstance(part, CategoricalEncoder)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} describes no pretrainer and modules: {type(error).__name__}: {error}"
        ) from error
    missing = [key for key in NEEDED if not isinstance(modules.get(key), nn.Module)]
    if missing:
        raise ValueError(f"{path} describes no network as {', '.join(missing)} among its modules")
    for name, encoder in (encoders or {"label_encoder": hparams.get("label_encoder")}).items():
        pretrainer.loadables.pop(name, None)
        if isinstance(encoder, CategoricalEncoder):
            _fill(encoder, source, name)
    load_pretrained(pretrainer, source)
    hparams["savedir"] = savedir


def _fill(encoder: CategoricalEncoder, source: str | Path, name: str) -> None:
    """Load the speakers' names, which SpeechBrain leaves empty without a word where it finds no file."""
    for ending in (".txt", ".ckpt"):
        file = _find(source, name + ending, needed=False)
        if file is None:
            continue
        try:
            encoder.load(file)
        except (ValueError, SyntaxError, TypeError, KeyError) as error:
            raise ValueError(f"{file} is no label encoder of SpeechBrain: {error}") from error
        if len(encoder):
            encoder.expect_len(len(encoder))
            return
        raise ValueError(f"{file} names no speaker")
    raise FileNotFoundError(
        f"no {name}.txt (or {name}.ckpt) in '{source}', which the YAML of the model asks for"
    )
