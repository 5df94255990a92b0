"""Torch's own messages stand behind a sentence that says what to do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape.callbacks._failing import sentence

w = torch.ones(3, requires_grad=True)


def backward_twice():
    loss = (w.exp() * w).sum()
    loss.backward()
    loss.backward()


def in_place():
    y = w.exp()
    y += 1
    y.sum().backward()


def fused_attention_twice():
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        q = torch.randn(1, 1, 4, 8, requires_grad=True)
        out = F.scaled_dot_product_attention(q, q, q).square().sum()
        (gradient,) = torch.autograd.grad(out, q, create_graph=True)
        torch.autograd.grad(gradient.sum(), q)


CASES = {
    "graph": (backward_twice, "detach what it keeps from call to call"),
    "in place": (in_place, "use the operation that makes a new tensor"),
    "second derivative": (fused_attention_twice, "no second derivative; replace it"),
    "no graph": (lambda: torch.ones(1).sum().backward(), "look for a detach()"),
    "unused": (lambda: torch.autograd.grad(w.sum(), torch.ones(2, requires_grad=True)), "pass allow_unused=True"),
    "sizes": (lambda: torch.ones(2, 3) @ torch.ones(2, 3), "do not fit together"),
    "broadcast": (lambda: torch.ones(2) + torch.ones(3), "do not fit together"),
    "batch sizes": (lambda: F.cross_entropy(torch.ones(4, 2), torch.zeros(3).long()), "do not fit together"),
    "types": (lambda: torch.ones(2, 2) @ torch.ones(2, 2).double(), "cast what the step makes"),
    "layer types": (lambda: nn.Linear(2, 2)(torch.ones(1, 2).double()), "cast what the step makes"),
    "index": (lambda: nn.Embedding(3, 2)(torch.tensor([5])), "size of the vocabulary"),
    "class": (lambda: F.cross_entropy(torch.ones(2, 2), torch.tensor([0, 7])), "number of classes"),
    "stack": (lambda: torch.stack([torch.ones(2), torch.ones(3)]), "a collate_fn"),
    "memory": (lambda: torch.empty(2**50), "smaller batch_size= or fewer examples="),
    "meta": (lambda: torch.ones(2, device="meta").tolist(), "meta device"),
    "device": (lambda: torch.ones(2) @ torch.ones(2, device="meta"), "another device|meta device"),
    "lazy": (lambda: nn.LazyLinear(2).weight.sum(), "run one batch through the model first"),
    "complex": (lambda: torch.ones(2, dtype=torch.complex64).amax(), "only real ones are measured"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_usual_messages_have_a_cure_before_them(case):
    raise_it, cure = CASES[case]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever torch raises
        raise_it()
    text = sentence(caught.value, "Net")
    assert any(words in text for words in cure.split("|")), text
    raw = " ".join(str(caught.value).split())
    assert text.endswith(f"({type(caught.value).__name__}: {raw})")


def test_another_message_names_the_model_and_what_to_try():
    text = sentence(KeyError("name"), "Net")
    assert text.startswith("evaluating or differentiating the loss of Net raised an error; try fewer examples=")
    assert text.endswith("(KeyError: 'name')")
    assert sentence(KeyError("name")) == "KeyError: 'name'"  # where no measure was taken, as in writing a file


def test_an_error_whose_text_fails_is_named():
    class Broken(Exception):
        def __str__(self):
            raise ValueError("no text")

    assert sentence(Broken()) == "Broken: no message that can be printed"
