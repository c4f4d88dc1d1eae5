"""Atomic checkpoints.

SpeechBrain's `Checkpointer` writes the meta file before the parameters: a kill in between leaves a checkpoint that
looks like the newest one and cannot be loaded. Here a folder is renamed to its final name once it is complete.
"""

from __future__ import annotations

import logging
import shutil

from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process, main_process_only
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

UNFINISHED = "unfinished-"


class AtomicCheckpointer(Checkpointer):
    """A SpeechBrain `Checkpointer` whose checkpoints survive a kill at any time.

    Examples
    --------
    >>> import torch
    >>> checkpointer = AtomicCheckpointer(getfixture("tmp_path"), {"model": torch.nn.Linear(2, 2)})
    >>> checkpointer.save_checkpoint(meta={"eer": 0.05}).path.name.startswith("CKPT+")
    True
    """

    def save_checkpoint(self, meta=None, end_of_epoch=True, name=None, verbosity=logging.INFO):
        """Save all recoverables, as SpeechBrain does; None in all but the main process of a distributed training."""
        if if_main_process():
            for leftover in self.checkpoints_dir.glob(f"{UNFINISHED}*"):
                shutil.rmtree(leftover)
        saved = super().save_checkpoint(meta or {}, end_of_epoch, name, logging.DEBUG)
        ddp_barrier()
        if saved is not None:
            path = saved.path.rename(saved.path.with_name(saved.path.name.removeprefix(UNFINISHED)))
            logger.log(verbosity, f"Saved checkpoint {path}")
            saved = saved._replace(
                path=path, paramfiles={key: path / f.name for key, f in saved.paramfiles.items()}
            )
        ddp_barrier()
        return saved

    def delete_checkpoints(self, **options):
        """Delete old checkpoints as SpeechBrain does, by what the main process sees on disk."""
        main_process_only(super().delete_checkpoints)(**options)

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(UNFINISHED + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(UNFINISHED + path.name)
