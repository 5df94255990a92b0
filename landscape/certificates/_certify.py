"""Make a certificate: code the network, decode it, count its errors, state the bound."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape import __version__
from landscape._errors import MeasurementError
from landscape.bounds._countable import METHODS
from landscape.bounds._inputs import require_counts, require_delta, require_method
from landscape.certificates._certificate import Certificate, claimable
from landscape.certificates._counting import count_wrong, objective_of, require_answers_of_one_example
from landscape.certificates._examples import examples_fingerprint, require_draws
from landscape.certificates._payload import decode_payload, payload_of, used_names
from landscape.certificates._post_training import code_weights
from landscape.certificates._skeleton import Architecture, Skeleton, construct, difference, require_nothing_beside
from landscape.certificates._subspace import SubspaceCode
from landscape.objective import Objective

FAMILY = "uniform-tensor"


def certify(
    network: nn.Module | SubspaceCode,
    batches: Iterable[Any],
    *,
    architecture: Architecture | None = None,
    loss_fn: Callable[..., Any] | None = None,
    delta: float = 0.05,
    method: str = "kl",
    family: str = FAMILY,
    seed: int = 0,
    choices: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    repeats_are_draws: bool = False,
    progress: bool | None = None,
) -> Certificate:
    """Bound the error rate of a coded network on new examples, and keep everything that shows it.

    R ≤ countable_bound(error of the decoded network on the n examples, n, bits of the stream + Σ log2 K, δ).

    A trained module is coded after training (`family`), at the knob where the bound is least. A `SubspaceCode` is coded
    as it is. Either way the stream is decoded, and the errors are those of what came out.

    What only led to the weights (learning rate, epochs, the checkpoint that was picked) is paid for by their code, as
    that is a code of all networks at once; to charge it as well does no harm. What the reader takes from elsewhere
    (architecture, seed, dimension, family, δ, which examples) must have been fixed before looking at the examples, or
    be charged.

    Args:
        network: The trained module, which is not changed, or what `train_subspace` returned.
        batches: The n examples, independent draws, each once.
        architecture: What builds the network when called without arguments. Its constant buffers and frozen parameters
            need no bits then. Without it the network itself, its tensors apart, is taken for the architecture: all
            buffers of floating-point type are coded, and tensors that could not be are refused. Numbers that training
            left in other attributes are not seen: so give it where you can. A SubspaceCode needs it.
        loss_fn: Loss of (output, target) by which answers are seen; by default a LightningModule's own
            `training_step`, else cross-entropy.
        delta: δ, the probability of failure.
        method: Which inequality (`countable_bound`); looking at all four costs nothing.
        family: Family of codes for a trained module.
        seed: Under which the architecture constructs what is not coded; a SubspaceCode has its own.
        choices: Number of alternatives of each choice that was made by looking at the examples, by name: log2 K bits.
        settings: Constructor's settings that the architecture was called with, to be kept with the certificate.
        repeats_are_draws: Vouch for examples that are equal to others having been drawn so, as happens where inputs
            have few values. By default they are refused: copies (of oversampling, of a sampler with replacement) are no
            independent draws, and n would be too large.
        progress: Whether to show a progress bar on stderr; by default only where that is a terminal.

    Returns:
        The certificate.

    Raises:
        MeasurementError: The network or its loss cannot be certified.
        ValueError: An argument is out of range.

    Source: Lotfi et al. 2022, arXiv:2211.13609; Zhou et al. 2019, arXiv:1804.05862.
    """
    charged = {name: require_counts(count, f"choices[{name!r}]")[0] for name, count in (choices or {}).items()}
    require_delta(delta)
    require_method(method, METHODS)
    if isinstance(network, SubspaceCode):
        if architecture is None:
            raise ValueError("a SubspaceCode is certified with the architecture it was trained in; give architecture=")
        building = architecture
        skeleton = construct(building, network.seed)
        objective = objective_of(skeleton.module, batches, loss_fn)
        data = _draws(objective, repeats_are_draws)
        require_answers_of_one_example(objective)
        code: Any = network
    else:
        trained = Skeleton(network)
        # Evaluated is what the architecture builds, not a copy of the trained object with whatever hangs on it.
        constructed = None if architecture is None else construct(architecture, seed)
        if architecture is None:
            require_nothing_beside(trained)
        building = functools.partial(copy.deepcopy, network) if architecture is None else architecture
        working = construct(building, seed)
        differs = difference(trained.describe(), working.describe())
        if differs:
            raise MeasurementError(f"the network is not what the architecture builds: {differs}")
        objective = objective_of(working.module, batches, loss_fn)
        data = _draws(objective, repeats_are_draws)
        # As constructed as well: weights that are coded coarsely may all be zero, which shows nothing.
        require_answers_of_one_example(objective)
        code = code_weights(
            working, trained, constructed, objective, family=family, seed=seed, delta=delta, progress=progress
        )
        skeleton = constructed or working
    payload = payload_of(code, skeleton)
    described = skeleton.describe() | {"settings": dict(settings or {})}
    described["constructed"] = skeleton.checksum(used_names(code, skeleton))
    # As the verifier does: a network constructed anew, what the bytes decode to, and nothing of what led to them.
    network = decode_payload(code.settings(), payload, described, building)
    final = objective_of(network, objective.batches, loss_fn)
    count = count_wrong(final)
    require_answers_of_one_example(final)
    bound = claimable(
        wrong=count.wrong, n=count.n, payload_bits=8 * len(payload), delta=delta, method=method, choices=charged
    )
    return Certificate(
        bound=bound,
        wrong=count.wrong,
        n=count.n,
        delta=float(delta),
        method=method,
        choices=charged,
        classes=count.classes,
        payload=payload,
        codec=code.settings(),
        architecture=described,
        data=data,
        loss=str(objective.describe()["loss"]).split(",")[0],
        versions={"landscape": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
    )


def _draws(objective: Objective, repeats_are_draws: bool) -> dict[str, Any]:
    """Return the fingerprint of the examples, and refuse copies before anything dear is done with them."""
    data = examples_fingerprint(objective.batches)
    if not repeats_are_draws:
        require_draws(data, objective.n_examples)
    return data
