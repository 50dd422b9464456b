"""Attention, transposed convolutions and embeddings: members are plain networks, and torch's own functions agree."""

from pathlib import Path

import pytest
import torch
from torch import nn

from divkd import member, to_batch_ensemble
from divkd.empirical.networks.attention import Attention, split_attention
from divkd.empirical.networks.convertible import layers
from divkd.empirical.networks.ensembles import rank_one
from divkd.shared.errors import InputError


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 5, "vdim": 3}, {"bias": False}])
@pytest.mark.parametrize("need", [True, False])
def test_split_attention_is_torchs(batch_first, sizes, need):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(8, 2, batch_first=batch_first, **sizes).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    mine = Attention(theirs)
    q, k, v = (torch.randn(3, n, d).double() for n, d in ((4, 8), (6, sizes.get("kdim", 8)), (6, sizes.get("vdim", 8))))
    inputs = [x if batch_first else x.transpose(0, 1) for x in (q, k, v)]
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[1, 4:] = True
    masks = ({}, {"key_padding_mask": hidden}, {"attn_mask": torch.rand(4, 6) < 0.3},
             {"attn_mask": torch.randn(6, 4, 6).double(), "average_attn_weights": False})  # fmt: skip
    for options in masks:
        out, weights = mine(*inputs, need_weights=need, **options)
        expected, their_weights = theirs(*inputs, need_weights=need, **options)
        torch.testing.assert_close(out, expected)
        if need:
            torch.testing.assert_close(weights, their_weights)
    with pytest.raises(InputError, match="needs batches"):
        mine(q[0], k[0], v[0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 3)

    def forward(self, ids, hidden):
        return self.head(self.encoder(self.embed(ids), src_key_padding_mask=hidden).mean(1))


def up():
    shape = nn.Unflatten(1, (4, 3, 3))
    layers = (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2, bias=False))
    return nn.Sequential(nn.Linear(5, 36), shape, *layers, nn.Flatten(), nn.Linear(98, 3))


@pytest.mark.parametrize("kind", ["encoder", "transposed"])
def test_members_are_plain_networks(kind):
    torch.manual_seed(0)
    if kind == "transposed":
        net, x = up().double(), (torch.rand(9, 5).double(),)
    else:
        net, x = Encoder().double(), (torch.randint(11, (9, 4)), torch.rand(9, 4) < 0.2)
        x[1][:, 0] = False
    net.eval()
    model = to_batch_ensemble(net, 2, init="normal", example=x if len(x) > 1 else x[0]).eval()
    folded = model(*x)
    assert (folded[0] - folded[1]).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(model(*x), folded)
        for m in range(2):
            torch.testing.assert_close(member(model, m)(*x), folded[m])
        ones = to_batch_ensemble(net, 2, init="ones").eval()
        torch.testing.assert_close(ones(*x)[1], net(*x))
    folded.square().sum().backward()
    assert all(bool(factor.grad.any()) for factor in rank_one(model))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_classification_model_of_torchvision_converts_or_is_refused_by_name(monkeypatch):
    """On the meta device, shapes alone: each layer converted, logits of two members; docs/use.md says which."""
    import torchvision
    from torchvision.models import get_model, list_models, regnet

    sizes = regnet.BlockParams.from_init_params

    def on_cpu(*args, **options):  # it computes widths with tensors
        with torch.device("cpu"):
            return sizes(*args, **options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_cpu)
    names = list_models(module=torchvision.models)
    refused = {}
    for name in names:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        with torch.device("cpu" if name.startswith("swin_v2") else "meta"):
            net = get_model(name, weights=None, num_classes=10, **options).eval()
            x = torch.rand(2, 3, *[299 if name == "inception_v3" else 224] * 2)
        try:
            model = to_batch_ensemble(net, 2, example=x if x.device.type == "cpu" else None).eval()
        except InputError as error:
            refused[name] = str(error)
            continue
        assert model(x).shape == (2, 2, 10), name
        assert len(rank_one(model)) == 2 * len(layers(split_attention(net))), name
    assert {name for name in names if name.startswith(("swin", "maxvit"))} == set(refused)
    assert all("relative_position_bias_table" in words or "cpb_mlp" in words for words in refused.values())
    page = (Path(__file__).parents[3] / "docs" / "use.md").read_text(encoding="utf-8")
    assert f"{len(names) - len(refused)} of the {len(names)} classification models of torchvision" in page
    assert all(f"`{name}`" in page for name in refused)
