"""Explain torch's usual error messages: what went wrong in the model's step, and what to do about it."""

from __future__ import annotations

import re

# Pattern in "Class: message" -> what it means and the cure. The first that matches counts.
_KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"OutOfMemoryError|MemoryError|out of memory|not enough memory|can't allocate memory",
        "the measurement does not fit into memory; give a smaller batch_size= or fewer examples=",
    ),
    (
        r"[Dd]erivative for .* is not implemented|does not support double backward|not twice differentiable|"
        r"double backward|not supported by forward AD|once_differentiable|formula for .* not implemented",
        "an operation of the model has no second derivative; replace it by one that has, or choose measures that need "
        "losses alone, such as average_case, or Compressibility",
    ),
    (
        r"does not require grad|does not have a grad_fn",
        "the loss does not depend on the trainable parameters by operations that torch differentiates; look for a "
        "detach(), an .item() or a torch.no_grad() on its way",
    ),
    (
        r"not have been used in the graph",
        "a tensor that the step differentiates by is not used in its loss; pass allow_unused=True there",
    ),
    (
        r"uninitialized|Uninitialized",
        "the model has parameters without a shape yet (lazy modules); run one batch through the model first",
    ),
    (
        r"meta tensor|[Mm]eta device|device meta|from the 'Meta' backend",
        "a tensor is on the meta device, which holds no numbers; build the model on a real device, or call "
        "model.to_empty(device=...) and load weights",
    ),
    (
        r"[Ee]xpected all tensors to be on the same device|should be the same device|device-side tensor",
        "the step uses a tensor on another device than its batch; create it on the batch's device, or register it as "
        "a buffer of the module",
    ),
    (
        r"modified by an inplace operation|in-place operation|in-place on",
        "the step changes a tensor in place that a derivative needs; use the operation that makes a new tensor",
    ),
    (
        r"backward through the graph a second time|already been freed",
        "the step uses a tensor whose graph belongs to an earlier call; detach what it keeps from call to call",
    ),
    (
        r"stack expects each tensor to be equal size|default_collate",
        "the examples cannot be joined into a batch because their shapes differ; give the data loader a collate_fn, or "
        "give the callback prepared batches=[...]",
    ),
    (
        r"index out of range in self|out of bounds|device-side assert|list index out of range",
        "an index lies outside of its table; compare the labels and token ids of the measured examples with the number "
        "of classes and the size of the vocabulary, or give batches=[...]",
    ),
    (
        r"[Cc]omplex",
        "the model has complex parameters or a complex loss, and only real ones are measured; store them as real pairs "
        "(torch.view_as_real)",
    ),
    (
        r"expected scalar type|same dtype|expected .* dtype|dtype .* but got|[Ff]ound dtype|weight type|to be of type",
        "the step mixes tensors of different types; parameters are measured in float32 at least, so cast what the step "
        "makes by itself to the type of its input",
    ),
    (
        r"size mismatch|shapes cannot be multiplied|must match the size|to match target batch_size|"
        r"is invalid for input of size|[Ss]izes of tensors must match|shape mismatch|doesn't match the broadcast|"
        r"but got .* channels|[Ee]xpected \d.*D .*input|must match except in dimension|same number of dimensions",
        "the shapes of tensors in the step do not fit together, so the measured batches may differ from the "
        "training's; give batches=[...] as training_step receives them",
    ),
    (
        r"[Ii]nference tensor",
        "the step uses a tensor made in inference mode, which has no derivative; make it under torch.no_grad() instead",
    ),
    (
        r"batching rule|vmap",
        "an operation of the model cannot be evaluated for several vectors at once; give a smaller batch of vectors, "
        "or a method landscape_loss(self, batch) without that operation",
    ),
)
_UNKNOWN = (
    "evaluating or differentiating the loss{of} raised an error; try fewer examples=, prepared batches=[...], or a "
    "method landscape_loss(self, batch) that returns the loss to measure"
)
_OF_TORCH = ("RuntimeError", "IndexError", "NotImplementedError", "TypeError", "ValueError", "AssertionError")


def advice(error: BaseException, text: str, model: str = "") -> str:
    """Explain an error that is not the toolkit's own.

    Args:
        error: The error.
        text: Its message.
        model: Class of the measured model, where a measure raised it; then an unknown message gets advice too.

    Returns:
        A clause with the cure; empty where there is none.
    """
    kind = type(error).__name__
    if kind in (*_OF_TORCH, "OutOfMemoryError", "MemoryError", "UnsupportedOperatorException"):
        for pattern, clause in _KNOWN:
            if re.search(pattern, f"{kind}: {text}"):
                return clause
    return _UNKNOWN.format(of=f" of {model}") if model else ""
