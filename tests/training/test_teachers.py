"""Teachers: loaded as stored, frozen for good, and refused with a clear error."""

import pytest
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import nn

from speechbrain_bccmt.lobes.bccmt import bccmt_small, bccmt_tiny
from speechbrain_bccmt.training.teachers import FrozenTeacher, LearningTeacher, load_teacher


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    torch.save(bccmt_tiny().state_dict(), tmp_path / "embedding_model.ckpt")
    return tmp_path


def test_it_holds_the_stored_weights(folder):
    teacher = load_teacher(folder, bccmt_tiny())
    stored = torch.load(folder / "embedding_model.ckpt")
    assert all(torch.equal(value, stored[name]) for name, value in teacher.model.state_dict().items())


def test_it_never_changes(folder):
    teacher = load_teacher(folder, bccmt_tiny())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    nn.ModuleDict({"teacher": teacher}).train()  # as a Brain does at each epoch
    features = 3 + torch.randn(4, 50, 80, requires_grad=True)
    embedding, maps = teacher.forward_with_attention(features)
    assert not embedding.requires_grad and not any(one.requires_grad for one in maps)
    assert not teacher(features).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_it_gives_what_the_model_gives(folder):
    teacher = load_teacher(folder, bccmt_tiny())
    features = torch.randn(2, 50, 80)
    lengths = torch.tensor([1.0, 0.6])
    assert torch.equal(teacher(features, lengths), teacher.model(features, lengths))


def test_missing_teacher(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_teacher(tmp_path / "nowhere", bccmt_tiny())


def test_another_shape(folder):
    with pytest.raises(ValueError, match="do not fit") as error:
        load_teacher(folder, bccmt_small())
    assert "\n" not in str(error.value)


def test_a_model_without_maps(folder):
    with pytest.raises(ValueError, match="no attention maps"):
        load_teacher(folder, nn.Linear(2, 2))


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "embedding_model.ckpt").write_text("no weights")
    with pytest.raises(ValueError, match="embedding_model.ckpt"):
        load_teacher(tmp_path, bccmt_tiny())


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"weights": Trap()}, tmp_path / "embedding_model.ckpt")
    with pytest.raises(ValueError):
        load_teacher(tmp_path, bccmt_tiny())
    assert not (tmp_path / "sprung").exists()


def test_frozen_teacher_stays_in_evaluation_mode():
    assert not FrozenTeacher(bccmt_tiny().train()).train(True).model.training


def encoder_of(*labels):
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(labels)
    return encoder


def test_a_teacher_with_its_classifier_predicts(folder):
    stored = nn.Linear(192, 3)
    torch.save(stored.state_dict(), folder / "classifier.ckpt")
    encoder_of("a", "b", "c").save(folder / "label_encoder.txt")
    options = {"classifier": nn.Linear(192, 3), "label_encoder": encoder_of("a", "b", "c")}
    teacher = load_teacher(folder, bccmt_tiny(), **options)
    embeddings = torch.randn(2, 1, 192, requires_grad=True)
    predictions = teacher.classify(embeddings)
    assert torch.equal(predictions, stored(embeddings)) and not predictions.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("labels", ["acb", "abd", "abcd"])
def test_a_teacher_of_other_classes_is_refused(folder, labels):
    torch.save(nn.Linear(192, 3).state_dict(), folder / "classifier.ckpt")
    encoder_of("a", "b", "c").save(folder / "label_encoder.txt")
    with pytest.raises(ValueError, match="classes"):
        load_teacher(folder, bccmt_tiny(), classifier=nn.Linear(192, 3), label_encoder=encoder_of(*labels))


def test_a_teacher_that_does_not_tell_its_classes_is_refused(folder):
    torch.save(nn.Linear(192, 3).state_dict(), folder / "classifier.ckpt")
    with pytest.raises(FileNotFoundError, match="label_encoder.txt"):
        load_teacher(folder, bccmt_tiny(), classifier=nn.Linear(192, 3), label_encoder=encoder_of("a"))
    with pytest.raises(ValueError, match="do not fit"):
        load_teacher(folder, bccmt_tiny(), classifier=nn.Linear(192, 4))


def test_a_teacher_without_classifier_predicts_nothing():
    with pytest.raises(ValueError, match="no classifier"):
        FrozenTeacher(bccmt_tiny()).classify(torch.randn(2, 1, 192))


def test_a_learning_teacher_learns():
    teacher = LearningTeacher(nn.Linear(4, 2), nn.Linear(2, 3)).train()
    teacher.classify(teacher.model(torch.randn(2, 1, 4))).sum().backward()
    assert teacher.model.training and all(p.grad is not None for p in teacher.parameters())
