"""Distillation losses against a plain reference, padding, gradients, and a few steps of training."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy

from speechbrain_bccmt.lobes.bccmt import bccmt_tiny
from speechbrain_bccmt.losses import (
    AttentionMapLoss,
    BankDistillationLoss,
    EmbeddingDistillationLoss,
    RelationalDistillationLoss,
    TokenDistillationLoss,
    match_blocks,
)
from speechbrain_bccmt.training.teachers import FrozenTeacher


def maps(*shape, seed=0):
    return torch.softmax(2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)), -1)


def test_identical_maps_give_zero():
    one = [maps(2, 4, 10, 5), maps(2, 2, 6, 6, seed=1)]
    assert AttentionMapLoss()(one, one, torch.tensor([1.0, 0.4])) == 0


def test_it_is_the_divergence_of_the_rows():
    student, teacher = maps(2, 3, 4, 5), maps(2, 3, 4, 5, seed=1)
    expected = entropy(teacher.numpy(), student.numpy(), axis=-1).mean()  # scipy: KL(teacher || student)
    assert AttentionMapLoss()([student], [teacher]).item() == pytest.approx(expected, rel=1e-5)
    other_way = entropy(student.numpy(), teacher.numpy(), axis=-1).mean()
    assert abs(expected - other_way) > 0.01


def test_pairs_are_averaged():
    student = [maps(1, 1, 3, 3, seed=i) for i in range(3)]
    teacher = [maps(1, 1, 3, 3, seed=5 + i) for i in range(4)]
    single = [AttentionMapLoss([pair])(student, teacher) for pair in ((0, 1), (2, 3))]
    assert torch.isclose(AttentionMapLoss([(0, 1), (2, 3)])(student, teacher), sum(single) / 2)


def test_heads_are_averaged_when_their_number_differs():
    student, teacher = maps(2, 2, 4, 5), maps(2, 4, 4, 5, seed=1)
    expected = AttentionMapLoss()([student.mean(1, True)], [teacher.mean(1, True)])
    assert torch.isclose(AttentionMapLoss()([student], [teacher]), expected)


def test_padding_is_ignored():
    """The loss of a padded batch is that of its utterances alone, whatever the padded rows contain."""
    long = [maps(1, 2, 20, 10, seed=i) for i in range(2)]
    short = [maps(1, 2, 10, 5, seed=3 + i) for i in range(2)]
    loss = AttentionMapLoss()
    expected = (20 * loss([long[0]], [long[1]]) + 10 * loss([short[0]], [short[1]])) / 30
    padded = []
    for i in range(2):
        filler = maps(1, 2, 20, 10, seed=7 + i)
        filler[:, :, :10, :5], filler[:, :, :10, 5:] = short[i], 0
        padded.append(torch.cat([long[i], filler]))
    assert torch.isclose(loss([padded[0]], [padded[1]], torch.tensor([1.0, 0.5])), expected)
    assert not torch.isclose(loss([padded[0]], [padded[1]]), expected)


def test_gradients_reach_the_student_only():
    student, teacher = maps(2, 2, 4, 5).requires_grad_(), maps(2, 2, 4, 5, seed=1).requires_grad_()
    AttentionMapLoss()([student], [teacher]).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    one, two = torch.randn(2, 1, 8, requires_grad=True), torch.randn(2, 1, 8, requires_grad=True)
    EmbeddingDistillationLoss()(one, two).backward()
    assert one.grad.abs().sum() > 0 and two.grad is None


def test_zero_weights_stay_finite():
    student = torch.tensor([[[[1.0, 0.0]]]], requires_grad=True)
    loss = AttentionMapLoss()([student], [torch.tensor([[[[0.0, 1.0]]]])])
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite(dtype):
    student, teacher = maps(1, 2, 4, 5).to(dtype), maps(1, 2, 4, 5, seed=1).to(dtype)
    assert torch.isfinite(AttentionMapLoss()([student], [teacher]))


@pytest.mark.parametrize(
    ("student", "teacher", "pairs", "message"),
    [
        ([maps(1, 2, 4, 5)], [maps(1, 2, 4, 6)], None, r"\(1, 2, 4, 6\)"),
        ([maps(1, 2, 4, 5)], [maps(1, 2, 3, 5)], None, r"\(1, 2, 3, 5\)"),
        ([maps(1, 2, 4, 5)], [maps(2, 2, 4, 5)], None, r"\(2, 2, 4, 5\)"),
        ([maps(2, 4, 5)], [maps(2, 4, 5)], None, r"\(2, 4, 5\)"),
        ([maps(1, 2, 4, 5)], [maps(1, 2, 4, 5)] * 2, None, "pairs"),
        ([maps(1, 2, 4, 5)], [maps(1, 2, 4, 5)], [(0, 1)], "out of range"),
    ],
)
def test_maps_that_do_not_match_are_refused(student, teacher, pairs, message):
    with pytest.raises(ValueError, match=message):
        AttentionMapLoss(pairs)(student, teacher)


def test_blocks_are_matched_by_stage():
    assert match_blocks((1, 1, 2, 1), (1, 2, 2, 3)) == [(0, 0), (1, 2), (2, 3), (3, 4), (4, 7)]
    with pytest.raises(ValueError, match="3 stages"):
        match_blocks((1, 1, 1), (1, 1))


def test_embedding_loss_is_a_cosine_distance():
    one = torch.randn(3, 1, 16)
    assert EmbeddingDistillationLoss()(one, 2 * one).item() == pytest.approx(0, abs=1e-6)
    assert EmbeddingDistillationLoss()(one, -one).item() == pytest.approx(2, abs=1e-6)
    with pytest.raises(ValueError, match="student_size"):
        EmbeddingDistillationLoss()(one, torch.randn(3, 1, 8))
    assert len(list(EmbeddingDistillationLoss(16, 8).parameters())) == 1


def test_training_brings_the_maps_closer():
    torch.manual_seed(0)
    student = bccmt_tiny()
    teacher = FrozenTeacher(bccmt_tiny())
    loss, optimiser = AttentionMapLoss(), torch.optim.AdamW(student.parameters(), lr=3e-3)
    features = torch.randn(4, 60, 80)
    _, target = teacher.forward_with_attention(features)
    history = []
    for _ in range(8):
        value = loss(student.forward_with_attention(features)[1], target)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        history.append(value.item())
    assert history[-1] < 0.8 * history[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def predictions(*shape, seed=0):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_equal_predictions_give_zero(temperature):
    loss = TokenDistillationLoss(temperature, teacher_scale=2, student_scale=2)
    student = predictions(5, 1, 7).requires_grad_()
    value = loss(student, student.detach())
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6) and student.grad.abs().max() < 1e-6
    # Softmax ignores a constant added to all classes.
    assert loss(student + 3, student).item() == pytest.approx(0, abs=1e-5)
    assert loss(student.flip(-1), student).item() > 0.1


@pytest.mark.parametrize("temperature", [1, 3])
def test_soft_form_is_the_divergence_of_softened_predictions(temperature):
    student, teacher = predictions(5, 1, 7), predictions(5, 1, 7, seed=1)
    soft = [
        torch.softmax(scale * logits[:, 0] / temperature, -1)
        for scale, logits in ((2, student), (4, teacher))
    ]
    expected = temperature**2 * entropy(soft[1].numpy(), soft[0].numpy(), axis=-1).mean()
    loss = TokenDistillationLoss(temperature, teacher_scale=4, student_scale=2)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-4)
    assert loss(student[:, 0], teacher[:, 0]).item() == pytest.approx(expected, rel=1e-4)


def test_hard_form_follows_the_teachers_best_class():
    student, teacher = predictions(5, 1, 7), predictions(5, 1, 7, seed=1)
    chosen = teacher[:, 0].argmax(-1)
    expected = -torch.log_softmax(2 * student[:, 0], -1)[torch.arange(5), chosen].mean()
    loss = TokenDistillationLoss(hard=True, student_scale=2)
    assert torch.isclose(loss(student, teacher), expected)
    assert torch.isclose(loss(student, 9 * teacher), expected)


@pytest.mark.parametrize("hard", [False, True])
def test_no_gradient_reaches_the_teachers_predictions(hard):
    student, teacher = predictions(5, 1, 7).requires_grad_(), predictions(5, 1, 7, seed=1).requires_grad_()
    TokenDistillationLoss(hard=hard)(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_predictions_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 1, 8\).*same classes"):
        TokenDistillationLoss()(predictions(5, 1, 7), predictions(5, 1, 8))
    for wrong in ({"temperature": 0}, {"teacher_scale": -1}, {"student_scale": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TokenDistillationLoss(**wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sharp_predictions_of_half_precision_are_finite(dtype):
    student, teacher = (30 * predictions(2, 1, 7, seed=seed).to(dtype) for seed in range(2))
    assert torch.isfinite(TokenDistillationLoss(0.5, teacher_scale=30, student_scale=30)(student, teacher))


def test_relational_loss_compares_similarities_alone():
    torch.manual_seed(0)
    teacher, student = torch.randn(5, 1, 12), torch.randn(5, 1, 7, requires_grad=True)
    loss = RelationalDistillationLoss()
    cosines = [F.cosine_similarity(e[:, 0, None], e[None, :, 0], dim=2) for e in (student, teacher)]
    expected = (cosines[0] - cosines[1]).square().sum() / (5 * 4)
    assert loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    rotation = torch.linalg.qr(torch.randn(12, 12)).Q
    assert loss(3 * teacher @ rotation, teacher).item() < 1e-10
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="1 and 1 embeddings"):
        loss(student[:1], teacher[:1])


def test_bank_loss_is_the_divergence_of_the_similarities():
    torch.manual_seed(0)
    bank, student = 2 + torch.randn(50, 8), torch.randn(4, 1, 8, requires_grad=True)
    teacher, loss = bank[:4, None].requires_grad_(), BankDistillationLoss(bank, scale=7.0)
    centred = F.normalize(bank - bank.mean(0), dim=1)
    p, q = (
        torch.softmax(7 * F.normalize(e, dim=1) @ centred.T, 1)
        for e in (teacher[:, 0] - bank.mean(0), student[:, 0])
    )
    assert loss(student, teacher).item() == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4)
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    assert not loss.state_dict()


def test_a_sampled_bank_holds_the_batch_and_estimates_the_same_order():
    torch.manual_seed(0)
    bank = torch.randn(400, 8)
    loss, teacher = BankDistillationLoss(bank, sample=100), bank[:6]
    exact = teacher - bank.mean(0)
    assert loss(exact, teacher).item() < 1e-6
    near, far = exact + 0.1 * torch.randn(6, 8), torch.randn(6, 8)
    assert loss(near, teacher).item() < loss(far, teacher).item()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BankDistillationLoss(torch.randn(1, 4)), "two at least"),
        (lambda: BankDistillationLoss(torch.randn(4)), "expected"),
        (lambda: BankDistillationLoss(torch.randn(4, 4), scale=0), "scale=0"),
        (lambda: BankDistillationLoss(torch.randn(4, 4), sample=0), "sample=0"),
        (
            lambda: BankDistillationLoss(torch.randn(4, 4))(torch.randn(2, 3), torch.randn(2, 4)),
            "student's .* size 3",
        ),
    ],
)
def test_bank_loss_refuses_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
