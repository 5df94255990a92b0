"""Coding integers into bytes and back, in constriction's own time for the same symbols: `python benchmarks/coding.py`.

The peer's is one call: symbols of 32 bits, counted before, under one categorical model, without telling the decoder
the counts. Ours are `write_integers` and `read_integers`: 64-bit integers, of which range, counts and model are found,
chosen, written and read again; beside them the adaptive model alone. All are taken in turn, and the minimum of the
processor's time counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import constriction
import numpy as np

from landscape.compression._entropy import Decoder, Encoder
from landscape.compression._integers import read_integers, write_integers


def contenders(integers: np.ndarray) -> dict[str, tuple[Callable[[], Any], Callable[[], Any], int]]:
    """Return by name what encodes, what decodes, and the length in bits."""
    symbols = (integers - integers.min()).astype(np.int32)
    wide = symbols.astype(np.int64)
    counts = np.bincount(symbols)
    size = len(counts)
    model = constriction.stream.model.Categorical(counts.astype(np.float64), perfect=False)

    def peer() -> np.ndarray:
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(symbols, model)
        return coder.get_compressed()

    def ours() -> bytes:
        encoder = Encoder()
        write_integers(encoder, integers)
        return encoder.payload()

    def adaptive() -> bytes:
        encoder = Encoder()
        encoder.adaptive(wide, size)
        return encoder.payload()

    words, payload, learned = peer(), ours(), adaptive()
    return {
        "constriction": (
            peer,
            lambda: constriction.stream.queue.RangeDecoder(words).decode(model, len(symbols)),
            32 * len(words),
        ),
        "ours": (ours, lambda: read_integers(Decoder(payload), len(integers)), 8 * len(payload)),
        "adaptive": (adaptive, lambda: Decoder(learned).adaptive(len(wide), size), 8 * len(learned)),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    print("| symbols | alphabet | constriction, ns a symbol | encode | decode | adaptive: encode | decode | length |")
    print("|---|---|---|---|---|---|---|---|")
    for count in (10**5, 10**6):
        for sigma in (1.0, 5.0, 40.0, 400.0):
            integers = np.rint(np.random.default_rng(0).normal(0, sigma, count)).astype(np.int64)
            calls = contenders(integers)
            spent = {name: [float("inf"), float("inf")] for name in calls}
            for _ in range(rounds):
                for name, (*both, _) in calls.items():
                    for index, call in enumerate(both):
                        start = time.process_time()
                        call()
                        spent[name][index] = min(spent[name][index], time.process_time() - start)
            nanoseconds = [1e9 * seconds / count for seconds in spent["constriction"]]
            ratios = {name: [s / p for s, p in zip(spent[name], spent["constriction"], strict=True)] for name in spent}
            print(
                f"| {count:.0e} | {np.ptp(integers) + 1} | {nanoseconds[0]:.1f} and {nanoseconds[1]:.1f} "
                f"| {ratios['ours'][0]:.2f} | {ratios['ours'][1]:.2f} "
                f"| {ratios['adaptive'][0]:.2f} | {ratios['adaptive'][1]:.2f} "
                f"| {calls['ours'][2] / calls['constriction'][2]:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
