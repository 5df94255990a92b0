"""Products with the Hessian are right for every differentiable operation, or differences take their place."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape import Objective
from landscape.curvature import hessian

ROWS, WIDTH = 6, 8


class Through(nn.Module):
    """Two parameters, a linear map of the input by them, an operation, and the mean square."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.4 * torch.randn(WIDTH, 4))
        self.other = nn.Parameter(1 + 0.3 * torch.rand(WIDTH))
        self.operation = operation

    def forward(self, x):
        return self.operation(F.linear(x, self.weight) + 0.5, self.other)


def spd(z):
    return z.T @ z + torch.eye(WIDTH).to(z)


def heads(z):
    return z.reshape(1, 2, ROWS, 4)


def images(z):
    return z.reshape(ROWS, 1, 2, 4)


def grid(z):
    return torch.tanh(z.reshape(1, 6, 4, 2))


def multi_head(z, w):
    x = z.reshape(3, 2, WIDTH)
    packed = torch.cat([torch.diag(w)] * 3)
    bias = torch.linspace(0, 1, 3 * WIDTH).to(z)
    out, weights = F.multi_head_attention_forward(
        x, x, x, WIDTH, 2, packed, bias, None, None, False, 0.0, torch.diag(w), bias[:WIDTH], training=False
    )
    return out + weights.sum()


LSTM, GRU, RNN = nn.LSTM(WIDTH, 3, 2, bidirectional=True), nn.GRU(WIDTH, 3), nn.RNN(WIDTH, 3, nonlinearity="tanh")
BILINEAR = nn.Bilinear(WIDTH, WIDTH, 2)
for constant in (LSTM, GRU, RNN, BILINEAR):
    constant.requires_grad_(False)  # they are no part of the model

OPERATIONS = {
    # normalisation
    "layer norm": lambda z, w: F.layer_norm(z, (WIDTH,), w, w),
    "rms norm": lambda z, w: F.rms_norm(z, (WIDTH,), w),
    "group norm": lambda z, w: F.group_norm(z, 2, w, w),
    "instance norm": lambda z, w: F.instance_norm(z[None], weight=w[:ROWS], bias=w[:ROWS]),
    "batch norm": lambda z, w: F.batch_norm(z, None, None, w, w, training=True),
    "local response norm": lambda z, w: F.local_response_norm(z[:, :, None], 3),
    "normalize": lambda z, w: F.normalize(z * w, dim=1),
    "weight norm": lambda z, w: torch._weight_norm(z, w[:ROWS, None], 0),
    "weight norm of columns": lambda z, w: torch._weight_norm(z, w[None], 1),
    # attention and recurrence
    "attention": lambda z, w: F.scaled_dot_product_attention(heads(z), heads(z * w), heads(z)),
    "causal attention": lambda z, w: F.scaled_dot_product_attention(heads(z), heads(z * w), heads(z), is_causal=True),
    "masked attention": lambda z, w: F.scaled_dot_product_attention(
        heads(z), heads(z * w), heads(z), attn_mask=torch.tril(torch.ones(ROWS, ROWS, dtype=torch.bool))
    ),
    "grouped attention": lambda z, w: F.scaled_dot_product_attention(
        heads(z), heads(z * w)[:, :1], heads(z)[:, :1], enable_gqa=True
    ),
    "multi-head attention": multi_head,
    "lstm": lambda z, w: LSTM.to(z.dtype)(z[:, None] * w)[0],
    "gru": lambda z, w: GRU.to(z.dtype)(z[:, None] * w)[0],
    "rnn": lambda z, w: RNN.to(z.dtype)(z[:, None] * w)[0],
    "bilinear": lambda z, w: BILINEAR.to(z.dtype)(z, z * w),
    # convolution, pooling, resampling
    "convolution": lambda z, w: F.conv2d(images(z), w.reshape(2, 1, 2, 2), padding=1),
    "transposed convolution": lambda z, w: F.conv_transpose2d(images(z), w.reshape(1, 2, 2, 2), stride=2),
    "average pooling": lambda z, w: F.avg_pool2d(images(z * w) ** 2, 2),
    "lp pooling": lambda z, w: F.lp_pool2d(images(z * w).exp(), 3.0, 2),
    "max pooling": lambda z, w: F.max_pool2d(images(z * w) ** 2, 2),
    "adaptive pooling": lambda z, w: F.adaptive_avg_pool2d(images(z * w) ** 2, (1, 3)),
    "bilinear resampling": lambda z, w: F.interpolate(images(z * w) ** 2, scale_factor=2, mode="bilinear"),
    "bicubic resampling": lambda z, w: F.interpolate(images(z * w) ** 2, scale_factor=2, mode="bicubic"),
    "grid sample": lambda z, w: F.grid_sample(images(w.repeat(ROWS))[:1] ** 2, grid(z), align_corners=False),
    "unfold": lambda z, w: F.unfold(images(z * w) ** 2, 2),
    "pixel shuffle": lambda z, w: F.pixel_shuffle((z * w).reshape(ROWS, 4, 2, 1) ** 2, 2),
    # activations
    **{
        f.__name__: lambda z, w, f=f: f(z * w)
        for f in (F.gelu, F.silu, F.mish, F.softplus, F.elu, F.selu, F.celu, F.logsigmoid, F.softsign, F.tanhshrink)
    },
    "gelu by tanh": lambda z, w: F.gelu(z * w, approximate="tanh"),
    "leaky relu": lambda z, w: F.leaky_relu(z * w) ** 2,
    "prelu": lambda z, w: F.prelu(z, w) ** 2,
    "hardswish": lambda z, w: F.hardswish(z * w),
    "glu": lambda z, w: F.glu(z * w),
    "softmax": lambda z, w: (z * w).softmax(1),
    "log softmax": lambda z, w: F.log_softmax(z * w, 1),
    "softmin": lambda z, w: F.softmin(z * w, 1),
    # reductions and distances
    "logsumexp": lambda z, w: (z * w).logsumexp(1),
    "norm": lambda z, w: torch.linalg.vector_norm(z * w, dim=1),
    "norm of order 3": lambda z, w: torch.linalg.vector_norm(z * w, 3, dim=1),
    "prod": lambda z, w: (z * w).prod(1),
    "cumprod": lambda z, w: (z * w).cumprod(1),
    "cumsum": lambda z, w: (z * w).cumsum(1) ** 2,
    "logcumsumexp": lambda z, w: (z * w).logcumsumexp(1),
    "std": lambda z, w: (z * w).std(1),
    "var": lambda z, w: (z * w).var(1),
    "max": lambda z, w: (z * w).max(1).values ** 2,
    "sort": lambda z, w: (z * w).sort(1).values * w,
    "cdist": lambda z, w: torch.cdist(z, z[1:3] * w),
    "cdist by products": lambda z, w: torch.cdist(z, z[1:3] * w, compute_mode="use_mm_for_euclid_dist"),
    "cdist of order 3": lambda z, w: torch.cdist(z, z[1:3] * w, p=3.0),
    "pdist": lambda z, w: F.pdist(z * w),
    "cosine similarity": lambda z, w: F.cosine_similarity(z, w[None]),
    "pairwise distance": lambda z, w: F.pairwise_distance(z, w[None]),
    # linear algebra
    "inverse": lambda z, w: torch.linalg.inv(spd(z * w)),
    "solve": lambda z, w: torch.linalg.solve(spd(z), w),
    "cholesky": lambda z, w: torch.linalg.cholesky(spd(z * w)),
    "triangular solve": lambda z, w: torch.linalg.solve_triangular(
        torch.linalg.cholesky(spd(z)), w[:, None], upper=False
    ),
    "slogdet": lambda z, w: torch.linalg.slogdet(spd(z * w))[1],
    "det": lambda z, w: torch.linalg.det(spd(z * w) / 5),
    "eigvalsh": lambda z, w: torch.linalg.eigvalsh(spd(z * w)),
    "svdvals": lambda z, w: torch.linalg.svdvals(z * w),
    "qr": lambda z, w: torch.linalg.qr((z * w).T)[1].abs(),
    "matrix exp": lambda z, w: torch.linalg.matrix_exp(spd(z * w) / 20),
    "pinv": lambda z, w: torch.linalg.pinv(z * w),
    "einsum": lambda z, w: torch.einsum("ni,nj,i->nij", z, z, w),
    "fft": lambda z, w: torch.fft.rfft(z * w).abs(),
    "stft": lambda z, w: torch.stft((z * w).reshape(-1), 8, window=w, return_complex=True).abs() ** 2,
    # special functions
    **{
        f.__name__: lambda z, w, f=f: f((z * w).abs() + 0.5)
        for f in (
            torch.lgamma, torch.digamma, torch.erf, torch.erfc, torch.log1p, torch.sqrt, torch.rsqrt, torch.sinc,
            torch.reciprocal, torch.expm1, torch.atan,
        )
    },
    "power": lambda z, w: (z.abs() + 0.5) ** w,
    "atan2": lambda z, w: torch.atan2(z, w),
    "hypot": lambda z, w: torch.hypot(z, w),
    "i0": lambda z, w: torch.special.i0(z * w),
    "xlogy": lambda z, w: torch.xlogy(z, w),
    "logaddexp": lambda z, w: torch.logaddexp(z, w),
    # losses
    "huber": lambda z, w: F.huber_loss(z * w, torch.zeros_like(z), delta=0.3),
    "smooth l1": lambda z, w: F.smooth_l1_loss(z * w, torch.zeros_like(z), beta=0.3),
    "kl": lambda z, w: F.kl_div(F.log_softmax(z * w, 1), torch.full_like(z, 1 / WIDTH), reduction="batchmean"),
    "poisson": lambda z, w: F.poisson_nll_loss(z * w, torch.ones_like(z)),
    "gaussian": lambda z, w: F.gaussian_nll_loss(z, torch.zeros_like(z), w.expand_as(z).exp()),
    "cosine embedding": lambda z, w: F.cosine_embedding_loss(z, z.flip(0) * w, torch.tensor([1, -1] * 3)),
    "triplet": lambda z, w: F.triplet_margin_loss(z, z.flip(0) * w, z.roll(1, 0), margin=5.0),
    "margin ranking": lambda z, w: F.margin_ranking_loss(z[:, 0] ** 2, w[:ROWS], torch.ones(ROWS).to(z), margin=3.0),
    "multi margin": lambda z, w: F.multi_margin_loss(z * w, torch.arange(ROWS), p=2),
    "multilabel": lambda z, w: F.multilabel_soft_margin_loss(z * w, (z > 0).to(z).detach()),
    "soft margin": lambda z, w: F.soft_margin_loss(z * w, z.sign().detach()),
    "bce": lambda z, w: F.binary_cross_entropy(torch.sigmoid(z * w), torch.full_like(z, 0.3)),
    "smoothed cross entropy": lambda z, w: F.cross_entropy(z * w, torch.arange(ROWS), label_smoothing=0.1),
    "ctc": lambda z, w: F.ctc_loss(
        F.log_softmax(z[:, None] * w, 2), torch.tensor([[1, 2]]), torch.tensor([ROWS]), torch.tensor([2])
    ),
    # indexing and structure
    "scatter": lambda z, w: (z * 0).scatter_add(1, torch.zeros(ROWS, WIDTH, dtype=torch.int64), z * w) ** 2,
    "index add": lambda z, w: (z * 0).index_add(0, torch.tensor([0, 0, 1, 1, 2, 2]), z * w) ** 2,
    "scatter reduce": lambda z, w: (z * 0).scatter_reduce(
        0, torch.zeros(ROWS, WIDTH, dtype=torch.int64), z * w, "mean", include_self=False
    ) ** 2,
    "index put": lambda z, w: z.clone().index_put_((torch.tensor([0, 2]),), w) ** 2,
    "where": lambda z, w: torch.where(z > 0.5, z * w, z**2),
    "clamp": lambda z, w: (z * w).clamp(-0.5, 1.0) ** 2,
    "trapezoid": lambda z, w: torch.trapezoid(z * w, w.cumsum(0)),
    "kron": lambda z, w: torch.kron(z, w[None]),
    "complex product": lambda z, w: (torch.complex(z, z * w) ** 2).abs(),
    "gumbel softmax": lambda z, w: F.gumbel_softmax(z * w, tau=0.7),
    "dropout": lambda z, w: F.dropout(z * w, 0.3) ** 2,
    "checkpoint": lambda z, w: torch.utils.checkpoint.checkpoint(
        lambda a, b: torch.tanh(a * b), z, w, use_reentrant=False
    ),
}  # fmt: skip


def mean_square(out, _):
    return (out**2).mean() + out.sin().mean()


def torch_differentiates_twice(model, x):
    """Whether this torch has the second derivative: 2.13 lacks those of cdist, pdist, ctc and multi margin."""
    weights = list(model.parameters())
    given = {"create_graph": True, "materialize_grads": True}
    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(mean_square(model(x), None), weights, **given)
    try:
        torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), weights, materialize_grads=True)
    except RuntimeError as error:
        return "derivative" not in str(error)
    return True


@pytest.mark.parametrize("name", OPERATIONS)
def test_products_are_differences_of_gradients(name):
    torch.manual_seed(0)
    model = Through(OPERATIONS[name]).double()
    seed = 0 if name in ("gumbel softmax", "dropout") else None
    # Some operations tie the rows together or need all of them, so nothing is cut to find out what the loss divides by.
    batches = [(torch.randn(ROWS, 4), torch.zeros(ROWS))]
    objective = Objective(model, mean_square, batches, noise_seed=seed, batch_weight=lambda batch: ROWS)
    point = objective.vector()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*taken by finite differences")
        operator = hessian(objective)
    assert ("differences" in operator.strategy) != torch_differentiates_twice(model, batches[0][0].double())
    identity = torch.eye(len(point), dtype=torch.float64)
    matrix = operator @ identity
    step = 1e-5
    with objective.session():
        rows = [
            (objective.gradient(point + step * e) - objective.gradient(point - step * e)) / (2 * step) for e in identity
        ]
        slopes = [(objective.loss(point + step * e) - objective.loss(point - step * e)) / (2 * step) for e in identity]
    scale = float(matrix.abs().max())
    torch.testing.assert_close(matrix, torch.stack(rows), rtol=1e-6, atol=1e-7 * scale)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-7, atol=1e-7 * scale)
    torch.testing.assert_close(objective.gradient(), torch.stack(slopes), rtol=1e-6, atol=1e-8)
