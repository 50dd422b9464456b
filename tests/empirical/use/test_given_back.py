"""What is handed over comes back as it was, no member sees another's work, a failure says where it was."""

import copy

import torch
from handed_over import X, Y, normed, plain, refusal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from divkd import DeepEnsemble, RunError, distill, member, predict, to_batch_ensemble


def test_a_failure_in_training_names_epoch_and_batch():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = plain()

        def forward(self, x):
            if len(x) == 3:
                raise KeyError("three")
            return self.net(x)

    student = Counting().eval()
    batches = [(X, Y), (X, Y), (X[:3], Y[:3])]
    assert refusal(lambda: distill([plain(1)], student, batches, 1, "kd"), RunError) == ("epoch 1, batch 3: 'three'")
    assert not student.training
    assert "epoch 1, batch 2: images hold" in refusal(lambda: distill([plain(1)], plain(), [(X, Y), (X * 9, Y)], 1))


def test_a_batch_of_one_is_left_out_only_where_a_layer_refuses_it():
    loader = DataLoader(TensorDataset(X[[*range(8), 0]], Y[[*range(8), 0]]), 4)
    seen = []
    for student in (normed(), to_batch_ensemble(normed(), 1), plain()):
        student.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])) if module.training else None)
        assert distill([plain(1)], student, loader, 1, "kd")
        assert (1 in seen[3:]) == (len(list(student.modules())) == 3)
        seen.clear()
    assert distill([plain(1)] * 2, to_batch_ensemble(normed(), 2), loader, 1, "kd")  # a row of each member


def test_what_is_handed_over_comes_back():
    """Images, modes, buffers, gradients, generators; a model that predicted can be trained and can teach."""

    class Restless(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = normed()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("kept", torch.zeros(8, 5))

        def forward(self, x):
            self.calls += 1
            self.kept = self.net(x.sub_(0.5))
            return self.kept.clone()

    teacher, student = Restless(), normed()
    for p in (*teacher.parameters(), *student.parameters()):
        p.grad = torch.ones_like(p)
    given, wanted = X.clone().requires_grad_(), copy.deepcopy(teacher.state_dict())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for _ in range(2):
        predict(teacher, given)
        distill([teacher], student, [(given, Y)], 1, "confods")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(given, X)
    assert given.grad is None
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, wanted[key])
        assert not value.is_inference()
    assert teacher.training
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in (*teacher.parameters(), *student.parameters()))
    teacher.net(X).sum().backward()


def test_members_do_not_see_each_other():
    class Centred(nn.Sequential):
        def forward(self, x):
            return super().forward(x.sub_(0.5).div_(0.25))

    for model in (
        to_batch_ensemble(Centred(*plain()), 3, example=X),
        DeepEnsemble([Centred(*plain(s)) for s in (0, 1)]),
    ):
        model.eval()
        truth = torch.stack([member(model, m)(X.clone()) for m in range(model.members)])
        before = X.clone()
        assert torch.allclose(model(X), truth, atol=1e-5)  # folded
        with torch.no_grad():
            assert torch.allclose(model(X), truth, atol=1e-5)  # in turn
            assert torch.allclose(model(torch.stack([X] * model.members)), truth, atol=1e-5)
        assert torch.equal(X, before)
