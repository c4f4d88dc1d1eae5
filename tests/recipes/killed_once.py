"""Trains as the recipe does, noting its steps; the second process is killed once, in the middle of the second epoch."""

import os
import signal
import sys
from pathlib import Path

from speechbrain_bccmt.training.speaker_brain import SpeakerBrain


def run(notes: Path, arguments: list[str]) -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes/VoxCeleb/SpeakerRec"))
    from train_speaker_embeddings import main

    rank, start = os.environ["RANK"], int((notes / "killed").exists())
    on_fit_batch_end = SpeakerBrain.on_fit_batch_end

    def note(self, batch, *rest):
        on_fit_batch_end(self, batch, *rest)
        with open(notes / f"start{start}-process{rank}.txt", "a") as file:
            print(self.epoch, self.step, *batch.id, file=file)
        if not start and (rank, self.epoch, self.step) == ("1", 2, 3):
            (notes / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    SpeakerBrain.on_fit_batch_end = note
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
