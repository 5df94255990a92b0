from __future__ import annotations

import inspect
import itertools
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import _loss_classes, _loss_functions
from landscape.losses import LossCounter, LossCounts, LossWatcher

SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 4.0], [5.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 0, 2])  # the last two are predicted wrongly
WEIGHT = torch.tensor([0.5, 2.0, 4.0])
LINEAR = getattr(F, "linear_cross_entropy", None)
needs_linear = pytest.mark.skipif(LINEAR is None, reason="this torch has no linear_cross_entropy")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(count: int, *shape: int) -> torch.Tensor:
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(5))


X, Y, Z = drawn(5, 3), drawn(5, 3, seed=1), drawn(5, 3, seed=2)
SIGN = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
POSITIVE = Y.exp()
PROBABILITY = X.sigmoid()
TARGETS = torch.tensor([2, 0, 1, 1, 2])
IGNORED = torch.tensor([2, 0, 1, 0, 0])
CLASS_WEIGHT = WEIGHT.double()
PIXELS = drawn(2, 3, 4, 2)
ONE_HOT = F.one_hot(TARGETS, 3).double()
WEIGHTED = {
    name: "weight" in inspect.signature(getattr(F, name)).parameters for name in ("l1_loss", "mse_loss", "huber_loss")
}

# Every loss function with arguments that are not its defaults: function, positional arguments, others.
CASES = {
    "classes": (F.cross_entropy, (X, TARGETS), {}),
    "classes ignored": (F.cross_entropy, (X, IGNORED), {"ignore_index": 0}),
    "classes weighted": (F.cross_entropy, (X, TARGETS, CLASS_WEIGHT), {}),
    "classes weighted, ignored, smoothed": (
        F.cross_entropy,
        (X, IGNORED),
        {"weight": CLASS_WEIGHT, "ignore_index": 1, "label_smoothing": 0.2},
    ),
    "class probabilities": (F.cross_entropy, (X, ONE_HOT * 0.7 + 0.1), {"weight": CLASS_WEIGHT}),
    "class probabilities of pixels": (F.cross_entropy, (PIXELS, PIXELS.softmax(1)), {"label_smoothing": 0.1}),
    "pixels": (F.cross_entropy, (PIXELS, classes(3, 2, 4, 2)), {"ignore_index": 1, "weight": CLASS_WEIGHT}),
    "one example": (F.cross_entropy, (X[0], TARGETS[0]), {}),
    "log-probabilities": (F.nll_loss, (X.log_softmax(1), IGNORED, CLASS_WEIGHT), {"ignore_index": 0}),
    "log-probabilities of pixels": (F.nll_loss, (PIXELS.log_softmax(1), classes(3, 2, 4, 2)), {}),
    "binary logits": (
        F.binary_cross_entropy_with_logits,
        (X, ONE_HOT),
        {"weight": POSITIVE, "pos_weight": CLASS_WEIGHT},
    ),
    "binary probabilities": (F.binary_cross_entropy, (PROBABILITY, ONE_HOT), {"weight": POSITIVE}),
    "cosine": (F.cosine_embedding_loss, (X, Y, SIGN), {"margin": 0.1}),
    "gaussian": (F.gaussian_nll_loss, (X, Y, POSITIVE), {"full": True}),
    "gaussian of one variance": (F.gaussian_nll_loss, (X, Y, POSITIVE[:, 0]), {"eps": 1e-3}),
    "hinge": (F.hinge_embedding_loss, (X[:, 0], SIGN), {"margin": 0.5}),
    "huber": (F.huber_loss, (X, Y), {"delta": 0.5} | ({"weight": POSITIVE} if WEIGHTED["huber_loss"] else {})),
    "divergence": (F.kl_div, (X.log_softmax(1), Y.softmax(1)), {}),
    "divergence of logarithms": (F.kl_div, (X.log_softmax(1), Y.log_softmax(1)), {"log_target": True}),
    "absolute": (F.l1_loss, (X, Y), {}),
    "ranking": (F.margin_ranking_loss, (X[:, 0], Y[:, 0], SIGN), {"margin": 0.2}),
    "square": (F.mse_loss, (X, Y), {}),
    "square of one example": (F.mse_loss, (X[0, 0], Y[0, 0]), {}),
    "margins of classes": (F.multi_margin_loss, (X, TARGETS), {"p": 2, "margin": 0.5, "weight": CLASS_WEIGHT}),
    "margins of labels": (F.multilabel_margin_loss, (X, torch.tensor([[0, 2, -1]] * 5)), {}),
    "soft margins of labels": (F.multilabel_soft_margin_loss, (X, ONE_HOT), {"weight": CLASS_WEIGHT}),
    "poisson": (F.poisson_nll_loss, (POSITIVE, POSITIVE.round()), {"log_input": False, "full": True, "eps": 1e-4}),
    "smooth": (F.smooth_l1_loss, (X, Y), {"beta": 0.3}),
    "soft margin": (F.soft_margin_loss, (X, ONE_HOT * 2 - 1), {}),
    "triplet": (F.triplet_margin_loss, (X, Y, Z), {"margin": 3.0, "p": 1.0, "swap": True}),
    "triplet by a distance": (F.triplet_margin_with_distance_loss, (X, Y, Z), {"margin": 3.0, "swap": True}),
}
if WEIGHTED["l1_loss"]:
    CASES |= {
        "weighted absolute": (F.l1_loss, (X, Y), {"weight": POSITIVE}),
        "weighted square": (F.mse_loss, (X, Y), {"weight": POSITIVE}),
    }
if LINEAR is not None:
    maps = drawn(3, 2, 3, seed=4)
    CASES |= {
        "linear": (LINEAR, (X, drawn(3, 3, seed=3), IGNORED), {"linear_bias": drawn(3), "ignore_index": 0}),
        "linear of default": (LINEAR, (X, drawn(3, 3, seed=3), TARGETS), {"weight": CLASS_WEIGHT}),
        "linear of pixels": (LINEAR, (X, maps, classes(3, 5, 2)), {"linear_bias": drawn(3, 2)}),
        "linear of probabilities": (LINEAR, (X, drawn(3, 3, seed=3), ONE_HOT), {"label_smoothing": 0.1}),
        "linear of one example": (LINEAR, (X[0], drawn(3, 3, seed=3), TARGETS[0]), {}),
    }
LOGITS = (drawn(6, 3, 4).log_softmax(2), classes(3, 3, 2) + 1, torch.tensor([6, 5, 6]), torch.tensor([2, 1, 2]))


def watched(function, *args, read=None, **kwargs):
    with LossWatcher(**({} if read is None else {"read": read})) as watcher, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own advice on kl_div and on old arguments
        result = function(*args, **kwargs)
    assert len(watcher.calls) == 1
    return watcher.calls[0], result


def evaluated(function, args, kwargs, reduction):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs, reduction=reduction)


def counted(function):
    with LossCounter() as counter:
        function()
    return counter.calls


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", CASES)
def test_a_call_is_seen_as_torch_evaluates_it(case, reduction):
    function, args, kwargs = CASES[case]
    plain = evaluated(function, args, kwargs, reduction)
    call, result = watched(function, *args, **kwargs, reduction=reduction)
    assert torch.equal(result, plain)
    assert (call.function, call.reduction, call.input is args[0]) == (function, reduction, True)
    elements = call.per_element()
    total, mean, none = (evaluated(function, args, kwargs, each) for each in ("sum", "mean", "none"))
    assert torch.equal(elements, none)
    assert float(total / mean) == pytest.approx(call.divisor, rel=1e-12)
    expected = {"mean": elements.sum() / call.divisor, "sum": elements.sum(), "none": elements}[reduction]
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_examples_share_the_loss_and_the_divisor(case):
    function, args, kwargs = CASES[case]
    call, _ = watched(function, *args, **kwargs)
    sums = call.per_example()
    if evaluated(function, args, kwargs, "none").ndim == 0:
        assert sums is None
        return
    assert sums.shape == (len(evaluated(function, args, kwargs, "none")), 4)
    counts = call.counts
    assert sums[:, 0].sum().item() == pytest.approx(evaluated(function, args, kwargs, "sum").item(), rel=1e-12)
    assert sums[:, 1:].sum(0).tolist() == pytest.approx([counts.divisor, counts.wrong, counts.counted], rel=1e-12)
    # Example by example, where nothing but the first dimension tells examples apart.
    if function in (F.cross_entropy, F.nll_loss, F.mse_loss, F.huber_loss):
        for index in range(len(sums)):
            one = tuple(value[index : index + 1] if value.shape[0] == len(sums) else value for value in args)
            own = {
                name: value[index : index + 1]
                if isinstance(value, torch.Tensor) and value.shape == args[0].shape
                else value
                for name, value in kwargs.items()
            }
            single, loss = watched(function, *one, **own, reduction="sum")
            expected = [loss.item(), single.counts.divisor, single.counts.wrong, single.counts.counted]
            assert sums[index].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_connectionist_losses_divide_by_the_lengths_of_targets_too(reduction):
    call, result = watched(F.ctc_loss, *LOGITS, blank=0, reduction=reduction)
    alone = torch.stack(
        [
            F.ctc_loss(LOGITS[0][:, [i]], LOGITS[1][[i]], LOGITS[2][[i]], LOGITS[3][[i]], reduction="sum")
            for i in range(3)
        ]
    )
    elements = alone / torch.tensor([2, 1, 2]) if reduction == "mean" else alone
    torch.testing.assert_close(call.per_element(), elements, rtol=1e-12, atol=0)
    assert call.counts == LossCounts("ctc_loss", reduction, 3.0, 0.0, 0)
    expected = {"mean": elements.sum() / 3, "sum": elements.sum(), "none": elements}[reduction]
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)


def test_a_batch_mean_divides_by_the_first_dimension():
    call, result = watched(F.kl_div, drawn(7, 3).log_softmax(1), drawn(7, 3).softmax(1), reduction="batchmean")
    assert (call.counts.reduction, call.divisor) == ("mean", 7.0)
    assert float(result) == pytest.approx(float(call.per_element().sum()) / 7, rel=1e-12)
    assert call.per_example()[:, 1].tolist() == pytest.approx([1.0] * 7)
    call, _ = watched(F.kl_div, X[0, 0], X[0, 0].sigmoid(), reduction="batchmean")
    assert (call.counts.reduction, call.divisor) == ("sum", 1.0)


def test_elements_that_are_broadcast_count_as_often_as_torch_averages_them():
    call, result = watched(F.mse_loss, X[:, :1], Y[:, 0])
    assert call.divisor == 25.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(call.per_element().sum() / 25) == pytest.approx(float(result), rel=1e-12)


def test_a_distance_of_ones_own_has_no_known_divisor():
    call, _ = watched(F.triplet_margin_with_distance_loss, X, Y, Z, distance_function=lambda a, b: (a - b).norm())
    assert call.divisor is None
    assert call.per_example() is None


@pytest.mark.parametrize(
    ("old", "reduction"),
    [
        ({"size_average": False}, "sum"),
        ({"size_average": True}, "mean"),
        ({"reduce": False}, "none"),
        ({"reduce": True}, "mean"),
        ({"size_average": False, "reduce": False}, "none"),
        ({"size_average": False, "reduce": True}, "sum"),
        ({"size_average": False, "reduction": "mean"}, "sum"),
    ],
)
@pytest.mark.parametrize("function", [F.cross_entropy, F.mse_loss, F.kl_div])
def test_old_arguments_for_the_reduction_are_understood(function, old, reduction):
    args = (X, TARGETS) if function is F.cross_entropy else (X, POSITIVE)
    call, result = watched(function, *args, **old)
    assert call.reduction == reduction
    torch.testing.assert_close(result, evaluated(function, args, {}, reduction), rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(call.per_element(), evaluated(function, args, {}, "none"), rtol=0, atol=0)


def test_the_reduction_may_stand_by_position():
    call, _ = watched(F.cross_entropy, X, TARGETS, None, None, -100, None, "sum")
    assert (call.reduction, call.divisor) == ("sum", 5.0)
    call, _ = watched(F.huber_loss, X, Y, "none")
    assert call.reduction == "none"


@pytest.mark.parametrize(
    ("alias", "args", "reduction"),
    [
        (torch.kl_div, (X, POSITIVE, 2), "sum"),
        (torch.binary_cross_entropy_with_logits, (X, ONE_HOT, POSITIVE, CLASS_WEIGHT, 1), "mean"),
        (torch.ctc_loss, (*LOGITS, 0, 2), "sum"),
        (torch.cosine_embedding_loss, (X, Y, SIGN, 0.3, 0), "none"),
        (torch.hinge_embedding_loss, (X[:, 0], SIGN), "none"),
        (torch.margin_ranking_loss, (X[:, 0], Y[:, 0], SIGN), "none"),
        (torch.poisson_nll_loss, (X, POSITIVE, True, False, 1e-8, 1), "mean"),
        (torch.triplet_margin_loss, (X, Y, Z, 2.0, 2, 1e-6, False, 1), "mean"),
    ],
)
def test_the_names_of_torch_itself(alias, args, reduction):
    call, result = watched(alias, *args)
    assert call.function is getattr(F, alias.__name__)
    assert call.reduction == reduction
    total = call.per_element().sum()
    expected = {"mean": total / call.divisor, "sum": total, "none": call.per_element()}[reduction]
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: F.cross_entropy(SCORES, LABELS), ("cross_entropy", "mean", 4.0, 2.0, 4)),
        (lambda: nn.CrossEntropyLoss(reduction="sum")(SCORES, LABELS), ("cross_entropy", "sum", 4.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES, LABELS, ignore_index=2), ("cross_entropy", "mean", 3.0, 1.0, 3)),
        (lambda: F.cross_entropy(SCORES, LABELS, WEIGHT), ("cross_entropy", "mean", 7.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES, LABELS, WEIGHT, label_smoothing=0.1), ("cross_entropy", "mean", 7.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES, F.one_hot(LABELS).float()), ("cross_entropy", "mean", 4.0, 2.0, 4)),
        (lambda: F.nll_loss(SCORES.log_softmax(1), LABELS), ("nll_loss", "mean", 4.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES[0], LABELS[0]), ("cross_entropy", "mean", 1.0, 0.0, 1)),
        (lambda: F.cross_entropy(SCORES, torch.full((4,), -100)), ("cross_entropy", "mean", 0.0, 0.0, 0)),
        (
            lambda: F.cross_entropy(SCORES.T[None], LABELS[None], reduction="none"),
            ("cross_entropy", "none", 4.0, 2.0, 4),
        ),
        (
            lambda: F.binary_cross_entropy_with_logits(SCORES[:, 0] - 1.5, torch.tensor([1.0, 1.0, 0.0, 1.0])),
            ("binary_cross_entropy_with_logits", "mean", 4.0, 1.0, 4),
        ),
        (
            lambda: F.binary_cross_entropy(torch.tensor([0.6, 0.4]), torch.tensor([0.0, 0.0]), reduction="sum"),
            ("binary_cross_entropy", "sum", 2.0, 1.0, 2),
        ),
        (lambda: F.mse_loss(SCORES, SCORES), ("mse_loss", "mean", 12.0, 0.0, 0)),
        (lambda: nn.KLDivLoss(reduction="sum")(SCORES, SCORES.exp()), ("kl_div", "sum", 12.0, 0.0, 0)),
    ],
)
def test_each_loss_function_tells_its_divisor_and_errors(function, expected):
    assert counted(function) == [LossCounts(*expected)]


@needs_linear
@pytest.mark.parametrize("at_once", [1, 6, 2**24])
def test_a_fused_loss_predicts_as_its_scores_do(monkeypatch, at_once):
    monkeypatch.setattr(_loss_classes, "_PREDICTED_AT_ONCE", at_once)
    hidden, weight, bias = drawn(40, 7), drawn(5, 7, seed=1), drawn(5, seed=2)
    labels = classes(5, 40)
    call, _ = watched(LINEAR, hidden, weight, labels, linear_bias=bias, ignore_index=3)
    scores = F.linear(hidden, weight, bias)
    plain, _ = watched(F.cross_entropy, scores, labels, ignore_index=3)
    assert (call.class_axis, call.n_classes, call.classifies) == (1, 5, True)
    assert torch.equal(call.scores, scores)
    assert torch.equal(call.mistaken, plain.mistaken)
    assert 0 < call.counts.wrong == plain.counts.wrong < call.counts.counted == plain.counts.counted


@needs_linear
def test_a_fused_loss_is_written_out_as_the_same_loss():
    for case, reduction in itertools.product([name for name in CASES if "linear" in name], ["mean", "sum", "none"]):
        function, args, kwargs = CASES[case]
        with LossWatcher(before=_loss_functions.written_out) as watcher:
            result = function(*args, **kwargs, reduction=reduction)
        assert watcher.calls[0].name == "cross_entropy"
        assert watcher.calls[0].class_axis == watched(function, *args, **kwargs)[0].class_axis
        torch.testing.assert_close(result, function(*args, **kwargs, reduction=reduction), rtol=1e-12, atol=0)


def test_what_knows_classes():
    kinds = {name: watched(function, *args, **kwargs)[0] for name, (function, args, kwargs) in CASES.items()}
    assert {call.name for call in kinds.values() if call.classifies} == {
        "cross_entropy",
        "nll_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
    } | ({"linear_cross_entropy"} if LINEAR else set())
    assert [kinds[name].class_axis for name in ("classes", "pixels", "one example", "binary logits", "square")] == [
        1,
        1,
        0,
        None,
        None,
    ]
    assert [kinds[name].n_classes for name in ("classes", "binary logits", "square")] == [3, 2, None]
    assert [kinds[name].threshold for name in ("binary logits", "binary probabilities", "classes")] == [0, 0.5, None]


def test_values_and_gradients_are_not_touched():
    scores = SCORES.clone().requires_grad_()
    with LossCounter() as counter:
        loss = F.cross_entropy(scores, LABELS)
    loss.backward()
    assert float(loss.detach()) == float(F.cross_entropy(SCORES, LABELS))
    assert scores.grad is not None
    assert (counter.wrong, counter.counted, counter.classifies) == (2.0, 4, True)
    assert counter.calls[0].result is None


def test_a_result_is_kept_on_request_to_differentiate_by_it():
    scores = SCORES.clone().requires_grad_()
    with LossCounter(keep_results=True) as counter:
        loss = 0.25 * F.cross_entropy(scores, LABELS, reduction="sum") + scores.square().sum()
    (slope,) = torch.autograd.grad(loss, counter.calls[0].result)
    assert float(slope) == 0.25


def test_counting_keeps_no_tensor_alive():
    scores = SCORES * 2
    gone = weakref.ref(scores)
    with LossCounter() as counter:
        F.cross_entropy(scores, LABELS)
    del scores
    assert gone() is None
    assert len(counter.calls) == 1


def test_a_loss_inside_a_loss_is_read_once():
    with LossCounter() as counter:
        F.multilabel_soft_margin_loss(X, ONE_HOT)
        nn.BCEWithLogitsLoss()(X, ONE_HOT)
        nn.GaussianNLLLoss()(X, Y, POSITIVE)
    assert [call.name for call in counter.calls] == [
        "multilabel_soft_margin_loss",
        "binary_cross_entropy_with_logits",
        "gaussian_nll_loss",
    ]


def test_what_a_reader_evaluates_is_no_call():
    with LossCounter() as outer, LossWatcher(lambda call: call.per_example()) as inner:
        F.cross_entropy(X, TARGETS)
    assert (len(outer.calls), len(inner.calls)) == (1, 1)
    with pytest.raises(ZeroDivisionError), LossWatcher(lambda call: 1 // 0):
        F.cross_entropy(X, TARGETS)
    assert len(counted(lambda: F.cross_entropy(X, TARGETS))) == 1  # also after a reader has failed


def test_a_call_can_be_changed_before_it_is_evaluated():
    def halved(function, arguments):
        return function, {**arguments, "input": arguments["input"] / 2}

    with LossWatcher(read=None, before=halved) as silent:
        result = F.cross_entropy(X, TARGETS, CLASS_WEIGHT)
    assert torch.equal(result, F.cross_entropy(X / 2, TARGETS, CLASS_WEIGHT))
    assert silent.calls == []
    with LossWatcher(before=halved) as watcher:
        torch.kl_div(X, Y, 2)
    assert torch.equal(watcher.calls[0].input, X / 2)


def test_other_functions_are_kept_on_request():
    with LossWatcher(others={torch.sigmoid}) as watcher:
        torch.tanh(X)
        result = torch.sigmoid(X)
    (call,) = watcher.other_calls
    assert (call.function, call.input is X, call.result is result) == (torch.sigmoid, True, True)


def test_a_call_without_its_arguments_fails_as_torch_has_it():
    with LossCounter() as counter, pytest.raises(TypeError, match="missing 1 required positional argument"):
        F.cross_entropy(X)
    assert counter.calls == []


@pytest.mark.parametrize(("function", "args"), [(F.cross_entropy, (X, TARGETS)), (F.mse_loss, (X, Y))])
def test_within_vmap_nothing_can_be_counted_and_nothing_fails(function, args):
    with LossCounter() as counter:
        losses = torch.vmap(function)(*args)
        torch.vmap(torch.func.grad(function))(*args)
    torch.testing.assert_close(losses.mean(), function(*args), rtol=1e-12, atol=0)
    assert [(call.divisor, call.counted, call.reduction) for call in counter.calls] == [(None, 0, "mean")] * 2
    with LossWatcher() as watcher:
        torch.vmap(function)(*args)
    (call,) = watcher.calls
    assert (call.readable, call.counts, call.per_example()) == (False, counter.calls[0], None)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch.func.jvp loads it
def test_within_other_transforms_a_call_counts():
    with LossCounter() as counter:
        torch.func.grad(lambda x: F.cross_entropy(x, TARGETS))(X)
        torch.func.jvp(lambda x: F.cross_entropy(x, TARGETS), (X,), (Y,))
    wrong = float((X.argmax(1) != TARGETS).sum())
    assert counter.calls == [LossCounts("cross_entropy", "mean", 5.0, wrong, 5)] * 2
