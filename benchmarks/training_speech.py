"""Speech, the teacher's view of it, noises and rooms on one device, for the training of the shipped model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
import torchaudio
from batch_augmentation import RATE, BatchAugmentation
from card_speech import held_out_speakers, trial_set, used_in_training
from model_card import campplus_model
from recipe_runs import SPEECH
from tqdm import tqdm

from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.features import KaldiFbank
from speechbrain_bccmt.trials.trial_list import speaker_of

# Share of the draws of each corpus; within it, by the square root of the length up to 6 s.
SHARES = {
    "common_voice_mini": 0.22,
    "speechocean762": 0.20,
    "google_speech_commands": 0.20,
    "msc_malayalam": 0.10,
    "unlabelled": 0.09,  # nobody knows who speaks: no speaker loss
    "librispeech_mini": 0.08,
    "arabic_speech_commands": 0.06,
    "an4": 0.05,
}
# Ratios of speed, how often each is drawn, and its class of the speaker's: 5 % faster is still the same voice.
SPEEDS = ((1, 1), (19, 20), (21, 20), (9, 10), (11, 10), (41, 50), (6, 5))
SPEED_SHARES = (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
SPEED_CLASSES = (0, 0, 0, 1, 2, 3, 4)
TEACHER_SECONDS = 8
LONGEST = 16  # seconds kept of an utterance


def training_utterances(corpora: list[str]) -> list[tuple[str, str, str]]:
    """List corpus, speaker ("" where unknown) and path of the utterances that may be trained on."""
    kept = []
    for corpus in corpora:
        left_out = set(held_out_speakers().get(corpus, ()))
        if (SPEECH / corpus / "meta").is_dir() and corpus in ("speechocean762", "arabic_speech_commands"):
            left_out |= set(trial_set(corpus).speakers)
        for utterance, file in find_utterances([str(SPEECH / corpus)]).items():
            speaker = "" if corpus == "unlabelled" else speaker_of(utterance)
            if speaker not in left_out:
                kept.append((corpus, speaker, file.path))
    return kept


class Speech:
    """All training speech at all speeds on a device, as 16-bit samples, with the teacher's embeddings of it."""

    def __init__(self, utterances: list[tuple[str, str, str]], device: torch.device):
        self.device = device
        waves = list(_read_all([path for _, _, path in utterances]))
        parts, starts, lengths, at = [], [], [], 0
        for speed in tqdm(SPEEDS, "speeds"):
            for wave in waves:
                part = wave.to(device).float()
                if speed != (1, 1):
                    part = torchaudio.functional.resample(part, *speed)
                parts.append(part.round().clamp(-32768, 32767).to(torch.int16))
                starts.append(at)
                lengths.append(len(part))
                at += len(part)
        self.samples = torch.cat(parts)
        # (speeds, utterances)
        self.starts = torch.tensor(starts, device=device).reshape(len(SPEEDS), -1)
        self.lengths = torch.tensor(lengths, device=device).reshape(len(SPEEDS), -1)
        names = sorted({(corpus, speaker) for corpus, speaker, _ in utterances if speaker})
        number = {name: index for index, name in enumerate(names)}
        speakers = [number.get((corpus, speaker), -1) for corpus, speaker, _ in utterances]
        self.speakers, self.n_speakers = torch.tensor(speakers, device=device), len(names)
        # Utterances sorted by speaker, and where each speaker's begin: to draw another one of the same.
        self.by_speaker = torch.argsort(self.speakers, stable=True)
        self.counts = torch.bincount(self.speakers + 1, minlength=self.n_speakers + 1)
        self.first = self.counts.cumsum(0) - self.counts
        self.probabilities = torch.zeros(len(utterances), device=device)
        self.targets = self._embed()
        weights = (self.lengths[0] / RATE).clamp(max=6).sqrt()
        for corpus in {corpus for corpus, _, _ in utterances}:
            rows = torch.tensor([name == corpus for name, _, _ in utterances], device=device)
            self.probabilities[rows] = SHARES[corpus] * weights[rows] / weights[rows].sum()
            # What a corpus' recordings have in common is no voice, and the student is not to learn it.
            self.targets[:, rows] -= self.targets[0, rows].mean(0)

    def draw(self, batch: int, samples: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw crops (batch, samples) in [-1, 1], their utterances and their speeds.

        What a short utterance leaves is filled by another one of its speaker.
        """
        rows = torch.multinomial(self.probabilities, batch, replacement=True)
        shares = torch.tensor(SPEED_SHARES, device=self.device)
        speeds = torch.multinomial(shares, batch, replacement=True)
        speakers = self.speakers[rows]
        place = (torch.rand(batch, device=self.device) * self.counts[speakers + 1]).long()
        others = torch.where(speakers >= 0, self.by_speaker[self.first[speakers + 1] + place], rows)
        lengths, other_lengths = self.lengths[speeds, rows], self.lengths[speeds, others]
        room = (lengths - samples).clamp(min=0)
        offsets = (torch.rand(batch, device=self.device) * room).long()
        position = torch.arange(samples, device=self.device)[None]
        beyond = position - lengths[:, None]
        places = torch.where(
            beyond < 0,
            (self.starts[speeds, rows] + offsets)[:, None] + position,
            self.starts[speeds, others][:, None] + beyond % other_lengths[:, None],
        )
        return self.samples[places].float() / 32768, rows, speeds

    @torch.inference_mode()
    def _embed(self) -> torch.Tensor:
        """Embed whole utterances by the teacher, cut to a multiple of 0.2 s: (speeds, utterances, size)."""
        teacher, front_end = campplus_model().to(self.device), KaldiFbank(scale=32768).to(self.device)
        lengths, starts = self.lengths.flatten(), self.starts.flatten()
        step = RATE // 5
        cut = lengths.clamp(max=TEACHER_SECONDS * RATE) // step * step
        cut = torch.where(cut < 2 * step, lengths, cut)
        found = torch.empty(len(lengths), 192, device=self.device)
        limit = (1500 if self.device.type == "cuda" else 30) * RATE
        with tqdm(total=len(lengths), desc="teacher", unit="utt") as progress:
            for samples in cut.unique().tolist():
                position = torch.arange(samples, device=self.device)
                for rows in (cut == samples).nonzero()[:, 0].split(max(1, limit // samples)):
                    waves = self.samples[starts[rows][:, None] + position].float() / 32768
                    features = front_end(waves)
                    found[rows] = teacher(features - features.mean(1, keepdim=True))
                    progress.update(len(rows))
        # Not an inference tensor: it takes part in training.
        return found.clone().reshape(*self.lengths.shape, -1)

    def class_centres(self) -> torch.Tensor:
        """Return where the classifier begins: the mean target of each speaker and class of speeds."""
        targets = F.normalize(self.targets, dim=-1)
        known = self.speakers >= 0
        classes = max(SPEED_CLASSES) + 1
        centres = torch.zeros(self.n_speakers * classes, targets.shape[-1], device=self.device)
        for speed, vectors in enumerate(targets):
            centres.index_add_(0, self.speakers[known] * classes + SPEED_CLASSES[speed], vectors[known])
        return F.normalize(centres, dim=-1)


def _read_all(paths: list[str], longest: int = LONGEST):
    """Read the beginnings of recordings as 16-bit samples, in order."""

    def one(path):
        wave = torch.from_numpy(read_mono(path, RATE)[: longest * RATE])
        return (wave * 32768).round().clamp(-32768, 32767).to(torch.int16)

    with ThreadPoolExecutor() as pool:
        yield from tqdm(pool.map(one, paths), "reading", len(paths), unit="utt")


def load_augmentation(device: torch.device) -> BatchAugmentation:
    """Read the noises and room responses that training may hear."""
    noises, rooms = (
        [path for path in find_recordings(SPEECH / name) if used_in_training(path)]
        for name in ("noise", "rir")
    )
    noise = torch.cat(list(_read_all(noises, longest=8))).to(device).float() / 32768
    responses = torch.zeros(len(rooms), RATE)
    for row, path in zip(responses, rooms, strict=True):
        response = torch.from_numpy(read_mono(path, RATE))
        response = response[max(0, int(response.abs().argmax()) - RATE // 200) :][:RATE]
        row[: len(response)] = response / response.norm()
    return BatchAugmentation(noise, responses.to(device))
