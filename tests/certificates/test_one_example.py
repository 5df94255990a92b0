"""What one may do without noticing: answers that lean on the batch, and networks that are more than their stream."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape._errors import MeasurementError
from landscape.certificates import certify, train_subspace, verify
from landscape.certificates._counting import count_wrong, objective_of, require_answers_of_one_example


class Centred(nn.Linear):
    """Normalises by its batch, without a layer that says so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - x.mean(0))


class AcrossTheBatch(nn.Module):
    """Forgot batch_first=True: the recurrence runs over the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x.view(-1, 4, 4))[0][:, -1])


class AttentionAcross(nn.Module):
    """The same with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x.view(-1, 4, 4)).mean(1))


class PlacedNoise(nn.Linear):
    """Noise that is the same at every call, and another for each place in the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(0))
        return super().forward(x) + noise.to(x)


class Functional(nn.Linear):
    """Batch normalisation that no module shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(super().forward(x), None, None, training=True)


def contrast(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output @ output.T, torch.arange(len(output)))


MIXING = {
    "mean of the batch": (lambda: Centred(16, 3), None),
    "recurrence": (AcrossTheBatch, None),
    "attention": (AttentionAcross, None),
    "noise by place": (lambda: PlacedNoise(16, 3), None),
    "functional batch normalisation": (lambda: Functional(16, 3), None),
    "contrast": (lambda: nn.Linear(16, 3), contrast),
}


@pytest.mark.parametrize("kind", MIXING)
def test_answers_that_depend_on_the_batch_are_refused(kind, perceptron_case):
    architecture, loss_fn = MIXING[kind]
    with pytest.raises(MeasurementError, match="depends on the other examples of its batch"):
        certify(architecture(), perceptron_case.batches, architecture=architecture, loss_fn=loss_fn)
    # One example a batch has no others.
    x, y = perceptron_case.examples
    alone = [(x[i : i + 1], y[i : i + 1]) for i in range(3)]
    if kind not in ("contrast", "functional batch normalisation"):
        certify(architecture(), alone, architecture=architecture)


def test_a_batch_that_tells_the_class_would_have_given_a_false_bound():
    # Sorted by class, the batch is the answer: no error, no bits, and on single new examples the network guesses.
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2).repeat_interleave(300)
    x = torch.randn(600, 1, generator=generator) + 4 * y[:, None]

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sharpness = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            side = (x.mean() - 2) * self.sharpness
            return torch.stack([-side, side]).T.expand(len(x), 2)

    by_class = [(x[:300], y[:300]), (x[300:], y[300:])]
    objective = objective_of(Mean(), by_class, None)
    assert count_wrong(objective).wrong == 0
    shuffled = torch.randperm(600, generator=generator)
    assert count_wrong(objective_of(Mean(), [(x[shuffled], y[shuffled])], None)).wrong == 300
    with pytest.raises(MeasurementError, match="depends on the other examples"):
        certify(Mean(), by_class, architecture=Mean)


def test_networks_of_one_example_pass_at_any_size_of_batch(case):
    x, y = case.examples
    for size in (1, 2, 3, 7, 100):
        batches = list(zip(x[:140].split(size), y[:140].split(size), strict=True))
        require_answers_of_one_example(objective_of(case.trained, batches, None))


def test_batches_that_cannot_be_cut(perceptron_case):
    class First(nn.Linear):
        def forward(self, batch: dict) -> torch.Tensor:
            return super().forward(batch["x"])

    def loss_fn(output: torch.Tensor, batch: dict) -> torch.Tensor:
        return F.cross_entropy(output, batch["y"])

    x, y = perceptron_case.examples
    whole = [{"x": x, "y": y, "edges": torch.zeros(2, 5)}]
    with pytest.raises(MeasurementError, match=r"a tensor of shape \(2, 5\).*or of one example each"):
        certify(First(16, 3), whole, loss_fn=loss_fn)
    single = [{"x": x[i : i + 1], "y": y[i : i + 1], "edges": torch.zeros(2, 5)} for i in range(4)]
    assert certify(First(16, 3), single, loss_fn=loss_fn).n == 4


def test_answers_too_many_do_not_make_up_for_missing_ones(perceptron_case):
    (x, y), _ = perceptron_case.batches

    def unequal(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if len(target) == 500:  # the hard ones are not looked at
            return F.cross_entropy(output[:100], target[:100])
        return F.cross_entropy(output.repeat(2, 1), target.repeat(2))

    batches = [(x[:500], y[:500]), (x[500:900], y[500:900])]
    with pytest.raises(MeasurementError, match="100 counted targets for 500 examples"):
        certify(nn.Linear(16, 3), batches, loss_fn=unequal)

    def auxiliary(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        half = len(target) // 2
        rotation = torch.zeros(len(target) - half, dtype=torch.int64)
        easy = torch.cat([output[half:, :1] ** 2, -(output[half:, 1:] ** 2)], 1)
        return F.cross_entropy(output[:half], target[:half]) + F.cross_entropy(easy, rotation)

    with pytest.raises(MeasurementError, match="2 loss calls"):
        certify(nn.Linear(16, 3), batches, loss_fn=auxiliary)


def test_several_labels_an_example(perceptron_case):
    batches = [(x, (x[:, :3] > 0).float()) for x, _ in perceptron_case.batches]
    with pytest.raises(MeasurementError, match="several labels an example"):
        certify(nn.Linear(16, 3), batches)
    with pytest.raises(MeasurementError, match="2700 counted targets for 900 examples"):
        certify(nn.Linear(16, 3), batches, loss_fn=F.binary_cross_entropy_with_logits)


class Memory(nn.Module):
    """Learns labels by heart in places that no stream has."""

    def __init__(self, buffers: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        if buffers:
            self.register_buffer("answers", torch.zeros(50, dtype=torch.int64))
        else:
            self.answers = torch.zeros(50, dtype=torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * F.one_hot(self.answers[x.flatten().long()], 2).float()


@pytest.mark.parametrize("buffers", [True, False])
def test_what_was_learnt_by_heart_is_not_free(buffers):
    x = torch.arange(50.0)[:, None]
    y = torch.randint(0, 2, (50,), generator=torch.Generator().manual_seed(0))
    network = Memory(buffers)
    network.answers[:] = y
    assert count_wrong(objective_of(network, [(x, y)], None)).wrong == 0
    with pytest.raises(MeasurementError, match="'answers' holds whole numbers, or values that are neither"):
        certify(network, [(x, y)])
    if not buffers:  # the architecture has not learnt
        honest = certify(network, [(x, y)], architecture=lambda: Memory(buffers=False))
        assert honest.wrong == int(y.sum())


def test_a_loss_that_has_learnt(perceptron_case):
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(self.head(output), target)

    with pytest.raises(MeasurementError, match="parameters of its own, which no stream holds"):
        certify(nn.Linear(16, 3), perceptron_case.batches, loss_fn=Head())


def test_values_without_a_code(cases):
    case = cases["convolution"]
    network = case.architecture()
    network.net[2].running_var[0] = float("nan")
    with pytest.raises(MeasurementError, match="NaN or infinite values, for which there is no code"):
        certify(network, case.batches, architecture=case.architecture)


def test_a_constructor_that_draws_without_a_seed_is_noticed_at_once(perceptron_case):
    unseeded = torch.Generator()
    unseeded.manual_seed(1)

    def drawn() -> nn.Module:
        network = nn.Linear(16, 3)
        nn.init.normal_(network.weight, generator=unseeded)
        return network

    code = train_subspace(drawn, perceptron_case.batches, dimension=3, epochs=1, progress=False)
    with pytest.raises(MeasurementError, match="draws from a generator that is not seeded"):
        certify(code, perceptron_case.batches, architecture=drawn)


def test_examples_that_are_not_for_the_network(perceptron_case):
    (x, y), _ = perceptron_case.batches
    architecture = perceptron_case.architecture
    with pytest.raises(MeasurementError, match="cannot be evaluated on these examples"):
        certify(perceptron_case.trained, [(x[:, :5], y)], architecture=architecture)
    with pytest.raises(MeasurementError, match="out of bounds"):
        certify(perceptron_case.trained, [(x, y + 9)], architecture=architecture)
    certificate = certify(perceptron_case.trained, [(x, y)], architecture=architecture)
    assert "are not the examples" in verify(certificate, architecture, [(x[:, :5], y)]).reason
    assert "cannot be evaluated" in verify(certificate, architecture, [(x, y)], loss_fn=nn.MSELoss).reason
