"""A checkpoint that was not finished is never taken for one."""

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_bccmt.training.checkpoints import AtomicCheckpointer


class Dies(torch.nn.Linear):
    """A module during whose saving the process ends."""

    def state_dict(self, *args, **kwargs):
        raise KeyboardInterrupt


def test_a_kill_while_saving_leaves_the_last_whole_checkpoint(tmp_path):
    model = torch.nn.Linear(2, 2)
    AtomicCheckpointer(tmp_path, {"model": model, "other": model}).save_checkpoint(meta={"eer": 0.3})
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointer(tmp_path, {"model": model, "other": Dies(2, 2)}).save_checkpoint(meta={"eer": 0.1})
    checkpointer = AtomicCheckpointer(tmp_path, {"model": model, "other": model})
    assert checkpointer.recover_if_possible().meta["eer"] == 0.3
    assert Checkpointer(tmp_path).find_checkpoint(min_key="eer").meta["eer"] == 0.3
    assert len(list(tmp_path.iterdir())) == 2
    checkpointer.save_and_keep_only(meta={"eer": 0.2}, importance_keys=[])
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 1 and names[0].startswith("CKPT+")


def test_it_gives_what_it_saved(tmp_path):
    model = torch.nn.Linear(2, 2)
    saved = AtomicCheckpointer(tmp_path, {"model": model}).save_checkpoint(name="best")
    assert saved.path == tmp_path / "CKPT+best"
    stored = torch.load(saved.paramfiles["model"])
    assert torch.equal(stored["weight"], model.weight)
