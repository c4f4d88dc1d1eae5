"""Where trained parameters are found, and that they must fit."""

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_bccmt.inference.parameters import find_checkpoint_file, load_parameters


def save_run(folder, values, key="eer"):
    """Write a save folder as training writes it: one checkpoint a value; the weights tell which."""
    model = torch.nn.Linear(1, 1, bias=False)
    checkpointer = Checkpointer(folder, recoverables={"embedding_model": model})
    for value in values:
        torch.nn.init.constant_(model.weight, value)
        checkpointer.save_checkpoint(meta={key: value}, end_of_epoch=True, name=f"eer{value}")


def test_best_checkpoint_of_save_and_output_folder(tmp_path):
    save_run(tmp_path / "save", [0.3, 0.1, 0.2])
    from_save = find_checkpoint_file(tmp_path / "save")
    assert from_save == find_checkpoint_file(str(tmp_path))
    assert torch.load(from_save)["weight"].item() == pytest.approx(0.1)
    newest = find_checkpoint_file(tmp_path, min_key=None)
    assert torch.load(newest)["weight"].item() == pytest.approx(0.2)


def test_most_recent_where_no_checkpoint_has_the_key(tmp_path):
    save_run(tmp_path, [0.1, 0.2], key="loss")
    assert torch.load(find_checkpoint_file(tmp_path))["weight"].item() == pytest.approx(0.2)


def test_flat_folder_wins_and_other_names(tmp_path):
    save_run(tmp_path / "save", [0.3])
    (tmp_path / "embedding_model.ckpt").touch()
    assert find_checkpoint_file(tmp_path) == tmp_path / "embedding_model.ckpt"
    with pytest.raises(FileNotFoundError, match="no pretrained 'classifier'.*looked for .*classifier.ckpt"):
        find_checkpoint_file(tmp_path, "classifier")


def test_local_folder_that_looks_like_a_hub_id_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    (tmp_path / "owner" / "model" / "embedding_model.ckpt").touch()
    assert find_checkpoint_file("owner/model").is_file()


@pytest.mark.parametrize("source", ["results/no/such/folder", "/no/such", "nothing"])
def test_missing_folder(source):
    with pytest.raises(FileNotFoundError, match="neither a folder nor a HuggingFace hub id"):
        find_checkpoint_file(source)


def test_hub_id_goes_to_the_hub(tmp_path, monkeypatch):
    asked = []

    def fetch(source, filename):
        asked.append((filename, source))
        return tmp_path / filename

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("speechbrain_bccmt.inference.model_files._hub_has_address", lambda _: True)
    assert find_checkpoint_file("owner/model") == tmp_path / "embedding_model.safetensors"
    assert asked == [("embedding_model.safetensors", "owner/model")]


def test_no_network_is_noticed_at_once(monkeypatch):
    """The hub's client would try again for half a minute."""
    monkeypatch.setattr("speechbrain_bccmt.inference.model_files._hub_has_address", lambda _: False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked"))
    with pytest.raises(
        FileNotFoundError, match="'a/b': there is no such folder, and .*the hub is out of reach"
    ):
        find_checkpoint_file("a/b")


def test_hub_without_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="embedding_model.ckpt could not be fetched from"):
        find_checkpoint_file("no-such-owner/no-such-model")


def test_parameters_must_fit(tmp_path):
    save_run(tmp_path, [0.25])
    model = torch.nn.Linear(1, 1, bias=False)
    files = load_parameters({"embedding_model": model}, tmp_path)
    assert model.weight.item() == pytest.approx(0.25)
    assert files["embedding_model"].is_file()
    for other in (torch.nn.Linear(1, 1), torch.nn.Linear(2, 1, bias=False)):
        with pytest.raises(ValueError, match="do not fit the Linear"):
            load_parameters({"embedding_model": other}, tmp_path)


@pytest.mark.parametrize("content", ["", ":::[ garbage", "x: !!python/object/apply:os.system [true]", "- 1"])
def test_damaged_meta_data_is_told(tmp_path, content):
    save_run(tmp_path, [0.2, 0.1])
    next(tmp_path.glob("CKPT+*")).joinpath("CKPT.yaml").write_text(content)
    with pytest.raises(ValueError, match="a CKPT.yaml in it is damaged"):
        find_checkpoint_file(tmp_path)
