"""Random training crops, read from the file by offset.

A training utterance is seen as one crop per epoch. Only the samples of the crop are read: decoding whole files costs
several times more on long recordings. Every draw (crop position, speed, noise, impulse response) depends only on the
seed, the epoch and the utterance id, so a resumed run sees exactly the batches that the interrupted one would have
seen, whatever the number of workers.
"""

from __future__ import annotations

import operator
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.distributed import if_main_process
from tqdm import tqdm

from speechbrain_bccmt.audio.crops import read_crop
from speechbrain_bccmt.audio.members import Member
from speechbrain_bccmt.audio.recording import read_mono

UNLABELLED = -1


def wrap(wave: torch.Tensor, n_samples: int) -> torch.Tensor:
    """Repeat a signal until it fills `n_samples`, and cut it there.

    Examples
    --------
    >>> wrap(torch.arange(3), 7)
    tensor([0, 1, 2, 0, 1, 2, 0])
    """
    if len(wave) < n_samples:
        wave = wave.repeat(-(-n_samples // len(wave)))
    return wave[:n_samples]


class CropReader:
    """Reads random crops of a fixed length.

    Parameters
    ----------
    sample_rate : int
        Rate of the crops in Hz.
    cache_audio : bool
        Keep the decoded audio of the utterances read in memory (16 bits per sample: 115 MB per hour at 16
        kHz).

    Examples
    --------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "tone.wav"
    >>> soundfile.write(path, [0.0] * 16000, 16000)
    >>> CropReader(16000)(path, 0, 16000, 8000, 16000).shape
    torch.Size([8000])
    """

    def __init__(self, sample_rate: int, cache_audio: bool = False):
        self.sample_rate = sample_rate
        self.cache = {} if cache_audio else None

    def __call__(self, path, start: int, stop: int, n_samples: int | None, file_rate: int) -> torch.Tensor:
        """Read one crop at a position drawn from torch's default generator.

        Parameters
        ----------
        path : str, Path or Member
            The audio file, or a member of a tar file.
        start, stop : int
            The utterance inside the file, in samples of the file.
        n_samples : int or None
            Length of the crop at the reader's rate; None reads the whole utterance.
        file_rate : int
            Rate of the file in Hz.

        Returns
        -------
        torch.Tensor
            Shape (n_samples,); utterances shorter than the crop are repeated.

        Raises
        ------
        ValueError
            If the file cannot be read; the message names it.
        """
        if self.cache is not None:
            utterance = self.keep(path, start, stop, file_rate)
            if n_samples is None:
                return utterance.float() / 32768
            offset = self._draw(len(utterance), n_samples)
            return wrap(utterance[offset : offset + n_samples].float() / 32768, n_samples)
        if n_samples is None:
            return self._read_whole(path, start, stop, file_rate)
        length = self._length(start, stop, file_rate)
        offset = self._draw(length, n_samples)
        crop = read_crop(path, self.sample_rate, start, stop, offset, n_samples)
        return wrap(torch.from_numpy(crop), n_samples)

    @staticmethod
    def _draw(length: int, n_samples: int) -> int:
        return int(torch.randint(max(1, length - n_samples + 1), (1,)))

    def _length(self, start: int, stop: int, file_rate: int) -> int:
        return -(-(stop - start) * self.sample_rate // file_rate)

    def _read_whole(self, path, start: int, stop: int, file_rate: int) -> torch.Tensor:
        if isinstance(path, Member):
            length = self._length(start, stop, file_rate)
            return torch.from_numpy(read_crop(path, self.sample_rate, start, stop, 0, length))
        return torch.from_numpy(read_mono(path, self.sample_rate, start, stop))

    def keep(self, path, start: int, stop: int, file_rate: int) -> torch.Tensor:
        """Return an utterance from memory, as 16-bit samples (samples,), reading it the first time."""
        key = (path, start)
        if key not in self.cache:
            wave = self._read_whole(path, start, stop, file_rate)
            self.cache[key] = (wave * 32768).clamp(-32768, 32767).to(torch.int16)
        return self.cache[key]


class TrainingCrops(DynamicItemDataset):
    """Training set of one random crop per utterance and epoch, with its speaker label.

    Items: `id`, `sig` (samples,), `spk_id_encoded` (1,) and `speed` in percent. Speed perturbation makes new speakers,
    as usual in the field: speed number k of speaker s has the label s + k * (number of speakers).

    Parameters
    ----------
    data : dict
        Rows of the utterance CSV by id, see `speechbrain.dataio.dataio.load_data_csv`. Those without a speaker
        (`spk_id` empty) get the label -1.
    label_encoder_file : str or Path
        Speakers and their labels; written from the data if missing, else read.
    crop_seconds : float or None
        Length of the crops in seconds; None for whole utterances, as text-dependent training needs. A batch is then
        padded to its longest.
    sample_rate : int
        Rate of the crops in Hz.
    augment : callable, optional
        Maps a waveform (1, samples) to one of the same shape, drawing from torch's default generator only.
    speeds : sequence of int
        Speeds in percent; 100 must come first. One is drawn per crop.
    seed : int
        Seed of all draws.
    cache_audio : bool
        Decode all utterances now and keep them in memory, see `CropReader`; data loader workers share them.
        Worth it for short corpora in compressed formats, where a seek costs milliseconds.

    Raises
    ------
    ValueError
        If a speaker of the data is missing in an existing label file, or `speeds` does not start with 100.

    Examples
    --------
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", [0.0] * 16000, 16000)
    >>> row = {"wav": folder / "a.wav", "start": 0, "stop": 16000, "spk_id": "s1", "sample_rate": 16000}
    >>> crops = TrainingCrops({"a": row}, folder / "labels.txt", crop_seconds=0.5)
    >>> crops.set_epoch(1)
    >>> crops[0]["sig"].shape, crops[0]["spk_id_encoded"], crops.n_classes
    (torch.Size([8000]), tensor([0]), 1)
    """

    def __init__(
        self,
        data,
        label_encoder_file,
        crop_seconds: float | None = 3.0,
        sample_rate: int = 16000,
        augment=None,
        speeds=(100,),
        seed: int = 0,
        cache_audio: bool = False,
    ):
        super().__init__(data)
        if not speeds or speeds[0] != 100:
            raise ValueError(f"speeds must start with 100, the original speed, but are {list(speeds)}")
        self.epoch = 0
        self.seed = seed
        self.sample_rate = sample_rate
        self.n_samples = None if crop_seconds is None else round(crop_seconds * sample_rate)
        self.read_crop = CropReader(sample_rate, cache_audio)
        self.augment = augment
        self.perturbations = [
            None if speed == 100 else SpeedPerturb(sample_rate, [speed]) for speed in speeds
        ]
        self.encoder = self._encode_speakers(label_encoder_file)
        self.add_dynamic_item(
            self._crop, takes=["id", "wav", "start", "stop", "sample_rate"], provides="crop"
        )
        self.add_dynamic_item(operator.itemgetter(0), takes="crop", provides="sig")
        self.add_dynamic_item(self._label, takes=["spk_id", "crop"], provides="spk_id_encoded")
        self.speeds = [int(speed) for speed in speeds]
        self.add_dynamic_item(self._speed, takes="crop", provides="speed")
        self.set_output_keys(["id", "sig", "spk_id_encoded", "speed"])
        if cache_audio:
            self._preload()

    @property
    def n_classes(self) -> int:
        """Number of classes: speakers times speeds."""
        return len(self.encoder) * len(self.perturbations)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops are drawn next; call it before the data loader is iterated."""
        self.epoch = epoch

    def _preload(self):
        def keep(row):
            self.read_crop.keep(row["wav"], int(row["start"]), int(row["stop"]), int(row["sample_rate"]))

        # soundfile releases the interpreter lock while it decodes.
        with ThreadPoolExecutor() as pool:
            decoded = pool.map(keep, self.data.values())
            for _ in tqdm(decoded, "Decoding", len(self.data), unit="utt", disable=not if_main_process()):
                pass

    def _encode_speakers(self, label_encoder_file):
        speakers = sorted({row["spk_id"] for row in self.data.values()} - {""})
        encoder = CategoricalEncoder()
        encoder.expect_len(len(speakers))
        Path(label_encoder_file).parent.mkdir(parents=True, exist_ok=True)
        encoder.load_or_create(path=str(label_encoder_file), from_iterables=[speakers])
        unknown = [speaker for speaker in speakers if speaker not in encoder.lab2ind]
        if unknown:
            raise ValueError(
                f"{label_encoder_file} does not know {len(unknown)} speaker(s) of the training data, such as "
                f"{unknown[0]}: it belongs to other data; train into another output folder"
            )
        return encoder

    def _crop(self, utterance_id, path, start, stop, file_rate):
        key = zlib.crc32(f"{self.seed}/{self.epoch}/{utterance_id}".encode())
        # Only the CPU generator is seeded, then restored: the training loop's own draws are unaffected.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key)
            which = int(torch.randint(len(self.perturbations), (1,)))
            perturb = self.perturbations[which]
            ratio = 1.0 if perturb is None else perturb.speeds[0] / 100
            n_samples = self.n_samples
            if perturb is not None and n_samples is not None:
                n_samples = round(n_samples * ratio) + 1
            wave = self.read_crop(path, int(start), int(stop), n_samples, int(file_rate)).unsqueeze(0)
            if perturb is not None:
                wave = perturb(wave)[:, : self.n_samples]
            if self.augment is not None:
                wave = self.augment(wave)
        return wave.squeeze(0), which

    def _speed(self, crop):
        return self.speeds[crop[1]]

    def _label(self, speaker, crop):
        if not speaker:
            return torch.tensor([UNLABELLED])
        return torch.tensor([self.encoder.encode_label(speaker) + crop[1] * len(self.encoder)])
