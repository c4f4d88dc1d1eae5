"""Reads what a training left: the YAML that is needed to run its model, and the model itself."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import nn

from speechbrain_bccmt.features import sample_rate
from speechbrain_bccmt.inference.parameters import HUB_ID, fetch_from_hub, load_pretrained
from speechbrain_bccmt.inference.yaml_safety import build_yaml, check_references, is_trusted

HPARAMS_FILE = "hyperparams.yaml"
NETWORK_KEYS = ("compute_features", "mean_var_norm", "embedding_model")


@dataclass(frozen=True)
class SpeakerModel:
    """A trained model, ready to run: its modules are in evaluation mode and without gradients.

    Attributes
    ----------
    compute_features, mean_var_norm, embedding_model : torch.nn.Module
        Waveform (batch, samples) to features (batch, frames, mels), to normalised features, to embedding
        (batch, 1, size).
    source : str
        Where it came from.
    hyperparams : str
        The YAML that describes the three modules.
    """

    compute_features: nn.Module
    mean_var_norm: nn.Module
    embedding_model: nn.Module
    source: str = ""
    hyperparams: str = ""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz that the model expects."""
        return sample_rate(self.compute_features)

    @property
    def embedding_size(self) -> int:
        """Size of the embedding."""
        n_samples = self.sample_rate
        with torch.no_grad():
            features = self.mean_var_norm(self.compute_features(torch.zeros(1, n_samples)), torch.ones(1))
            return self.embedding_model(features).shape[-1]


def load_speaker_model(source: str | Path, trust_code: bool | None = None) -> SpeakerModel:
    """Load a trained model.

    Parameters
    ----------
    source : str or Path
        A hub folder, the output folder of a training, or a HuggingFace hub id (owner/model).
    trust_code : bool or None
        True builds whatever the YAML names as a network, such as a class of the user's own; None asks the environment
        variable BCCMT_TRUST_CODE.

    Returns
    -------
    SpeakerModel
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If the YAML or the parameters are not found.
    ValueError
        If the YAML lacks a key or would run code, or the parameters do not fit the model it describes.
    """
    hparams_file = find_hparams_file(source)
    nodes = read_nodes(hparams_file)
    text = format_nodes({key: nodes[key] for key in NETWORK_KEYS})
    hparams = build_yaml(text, str(hparams_file), is_trusted(trust_code))
    loadables = {name: hparams[name] for name in stateful_parts(nodes)}
    load_pretrained(Pretrainer(loadables=loadables), source)
    modules = {key: hparams[key].eval().requires_grad_(False) for key in NETWORK_KEYS}
    return SpeakerModel(**modules, source=str(source), hyperparams=text)


def find_hparams_file(source: str | Path) -> Path:
    """Tell where the YAML of a hub folder, a training or a hub id is; fetch it in the last case."""
    if not Path(source).exists() and HUB_ID.fullmatch(str(source)):
        return fetch_from_hub(str(source), HPARAMS_FILE)
    return Path(source) / HPARAMS_FILE


def read_nodes(hparams_file: Path) -> CommentedMap:
    """Read a YAML without building what it describes.

    Parameters
    ----------
    hparams_file : Path
        The `hyperparams.yaml` of a training or of a hub folder.

    Returns
    -------
    CommentedMap
        Its top-level nodes, references resolved, tags kept.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is no valid YAML or lacks a key that a speaker model needs.
    """
    try:
        text = Path(hparams_file).read_text(encoding="utf-8")
        check_references(text, str(hparams_file))
        nodes = YAML().load(resolve_references(text))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {hparams_file}: expected the output folder of a training, or a hub folder"
        ) from None
    except (YAMLError, UnicodeDecodeError, KeyError) as error:
        reason = " ".join(str(error).split("To suppress")[0].split())
        raise ValueError(f"{hparams_file} is no valid YAML: {reason}") from error
    missing = [key for key in NETWORK_KEYS if not isinstance(nodes, dict) or key not in nodes]
    if missing:
        raise ValueError(f"{hparams_file} lacks {', '.join(missing)}: it does not describe a speaker model")
    return nodes


def stateful_parts(nodes: CommentedMap) -> list[str]:
    """Name the parts that have parameters: the encoder, and a normalisation with statistics of the training."""
    norm = nodes["mean_var_norm"]
    # "global" is what SpeechBrain takes where the YAML does not say.
    is_global = isinstance(norm, dict) and norm.get("norm_type", "global") == "global"
    return ["embedding_model", "mean_var_norm"] if is_global else ["embedding_model"]


def format_nodes(nodes: dict) -> str:
    """Write nodes as YAML, without the comments and anchors of the file that they come from.

    Examples
    --------
    >>> nodes = YAML().load("a: &x !new:torch.nn.Linear # why\\n  in_features: 2\\nb: *x")
    >>> print(format_nodes({"a": nodes["a"]}).strip())
    a: !new:torch.nn.Linear
      in_features: 2
    """
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(_stripped(CommentedMap(nodes)), stream)
    return stream.getvalue()


def _stripped(node):
    if isinstance(node, dict):
        copy = CommentedMap((key, _stripped(value)) for key, value in node.items())
    elif isinstance(node, list):
        copy = CommentedSeq(_stripped(value) for value in node)
        copy.fa.set_flow_style()
    else:
        return node
    tag = getattr(node, "tag", None)
    if tag is not None and tag.value:
        copy.yaml_set_ctag(tag)
    return copy
