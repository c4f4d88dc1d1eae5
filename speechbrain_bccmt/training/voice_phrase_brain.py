"""Training of an embedder of voice and phrase, from an encoder that already knows voices."""

from __future__ import annotations

from copy import deepcopy
from operator import methodcaller
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from speechbrain_bccmt.inference.model_files import CALIBRATION_FILE, PHRASE_FILE
from speechbrain_bccmt.scoring import Calibration, cosine_scores
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion
from speechbrain_bccmt.training.crops import TrainingCrops
from speechbrain_bccmt.training.distributed import apply
from speechbrain_bccmt.training.speaker_brain import SpeakerBrain

PHRASE_CLASSES = ("phrase", "speaker-phrase")


class PhraseClasses:
    """The speaker and the phrase of each training class, which is a pair of the two.

    Parameters
    ----------
    training_set : TrainingCrops
        Prepared with `class_of="speaker-phrase"`. At another speed, the speaker is another one and the phrase is the
        same.

    Raises
    ------
    ValueError
        If a class is not a pair.
    """

    def __init__(self, training_set: TrainingCrops):
        encoder, speeds = training_set.encoder, len(training_set.speeds)
        names = [encoder.ind2lab[index].partition("/") for index in range(len(encoder))]
        if any(not separator for _, separator, _ in names):
            raise ValueError("voice and phrase are trained apart: class_of must be speaker-phrase")
        speakers, phrases = (_numbered([name[part] for name in names]) for part in (0, 2))
        self.n_speakers = int(speakers.max() + 1)
        self.speakers = torch.cat([speakers + speed * self.n_speakers for speed in range(speeds)])
        self.n_speakers *= speeds
        self.phrases, self.n_phrases = phrases.repeat(speeds), int(phrases.max() + 1)
        self.n_pairs = training_set.n_classes

    def count(self, phrase_class: str) -> int:
        """Return how many classes the phrase part learns, for `phrase_class` of the YAML."""
        if phrase_class not in PHRASE_CLASSES:
            raise ValueError(f"phrase_class is '{phrase_class}', expected {' or '.join(PHRASE_CLASSES)}")
        return self.n_phrases if phrase_class == "phrase" else self.n_pairs


class VoicePhraseBrain(SpeakerBrain):
    """Trains a `VoicePhraseEmbedder`: its token on phrases and, unless frozen, its encoder on speakers.

    The encoder learns at the rate of the rest times `encoder_lr`, each of its stages at `layer_decay` times that of the
    one above; with `encoder_lr` 0 it is frozen. Hyperparameters besides those of `SpeakerBrain`: `phrase_class`
    ("phrase", or "speaker-phrase" for a token that learns both), `encoder_lr`, `layer_decay`, `speaker_weight`, and
    `keep_weight` for the cosine distance to the embeddings of the initial encoder.

    Parameters
    ----------
    classes : PhraseClasses
        Classes of the training set.
    **kwargs
        As for `SpeakerBrain`; the classifier is the one for phrases.
    """

    def __init__(self, classes: PhraseClasses, **kwargs):
        modules, hparams = dict(kwargs.pop("modules")), kwargs["hparams"]
        model = modules["embedding_model"]
        self.classes, self.frozen = classes, not hparams["encoder_lr"]
        if self.frozen:
            model.freeze_encoder()
        else:
            voice = {"input_size": model.encoder.embedding_size, "out_neurons": classes.n_speakers}
            modules["voice_classifier"] = hparams["classifier"](**voice)
            kwargs["checkpointer"].add_recoverable("voice_classifier", modules["voice_classifier"])
        super().__init__(modules=modules, **kwargs)
        self.before = None
        if not self.frozen and hparams["keep_weight"]:
            self.before = deepcopy(model.encoder).requires_grad_(False).eval()

    def init_optimizers(self):
        """Give the encoder's stages their own learning rates."""
        groups: dict[float, list] = {}
        for name, parameter in self.modules.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self._lr_factor(name), []).append(parameter)
        self.optimizer = self.opt_class(
            [{"params": parameters, "lr_factor": factor} for factor, parameters in groups.items()]
        )
        self.optimizers_dict = {"opt_class": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def _lr_factor(self, name: str) -> float:
        """Return the learning rate of a parameter, by its name, relative to the token's."""
        _, inside, part = name.partition("front_end.")
        if not inside:
            return 1.0
        stages = len(self.hparams.embedding_model.encoder.stages)
        kind, number = part.split(".")[:2]
        # The stem is below the first stage, the pooling above the last.
        level = -1 if kind == "stem" else int(number) if kind in ("stages", "downsamples") else stages
        return self.hparams.encoder_lr * self.hparams.layer_decay ** (stages - level)

    def calibrate(self, folder: str | Path) -> None:
        """Fit the decisions of the checkpoint with the lowest dev EER on the dev trials, and write them to a folder.

        Writes `phrase_calibration.json` for voice and phrase, and `calibration.json` for the cosine of whole
        embeddings.
        """
        self.on_evaluate_start(min_key="eer")
        embeddings, trials = self.embed_dev(), self.dev_set[1]
        sides = trials.enrol, trials.test, trials.models
        size = self.hparams.embedding_model.voice_size
        whole, voice, phrase = (
            np.asarray(cosine_scores(part, *sides)) for part in (embeddings, *np.split(embeddings, [size], axis=1))
        )
        speaker = trials.is_type("target-correct") | trials.is_type("target-wrong")
        said = trials.is_type("target-correct") | trials.is_type("impostor-correct")
        fusion = PhraseFusion.fit(size, voice, phrase, speaker, said, fitted_on="dev_trials.txt")
        fusion.save(Path(folder) / PHRASE_FILE)
        Calibration.fit(whole[trials.target], whole[~trials.target], fitted_on="dev_trials.txt").save(
            Path(folder) / CALIBRATION_FILE
        )

    def compute_forward(self, batch, stage):
        """Embed voice and phrase, and classify them."""
        batch = batch.to(self.device)
        features, lengths = self.extract_features(batch, stage)
        voice, phrase = apply(self.modules.embedding_model, methodcaller("forward_parts", features, lengths))
        found = {"cosines": self.classify(phrase)}
        if not self.frozen:
            with torch.autocast(self.device_type, enabled=False):
                found["voice_cosines"] = self.modules.voice_classifier(voice.float())
        if self.before is not None:
            with torch.no_grad():
                before = self.before(features, lengths)
            found["kept"] = F.cosine_similarity(voice.float(), before.float(), dim=-1).mean()
        return found

    def compute_losses(self, predictions, batch):
        """Return the losses of phrase and voice, and of the encoder's drift from its initial embeddings."""
        labels = batch.spk_id_encoded.data
        own = labels if self.hparams.phrase_class == "speaker-phrase" else self.classes.phrases.to(labels)[labels]
        losses = {"phrase_loss": (1.0, self.hparams.compute_cost(predictions["cosines"], own))}
        if not self.frozen:
            speakers = self.classes.speakers.to(labels)[labels]
            cost = self.hparams.compute_cost(predictions["voice_cosines"], speakers)
            losses["speaker_loss"] = (self.hparams.speaker_weight, cost)
        if self.before is not None:
            losses["keep_loss"] = (self.hparams.keep_weight, 1 - predictions["kept"])
        return losses


def _numbered(names: list[str]) -> torch.Tensor:
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return torch.tensor([numbers[name] for name in names])
