"""The time budget, with a clock that the test moves."""

import pytest
from landscape_test_trainings import Plain, fit, run_of

from landscape.callbacks import HessianSpectrum, _hessian_spectrum
from landscape.callbacks._budget import TimeBudget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("share", [0.02, 0.05, 0.5])
@pytest.mark.parametrize("unit_seconds", [0.001, 0.02])
def test_the_share_is_kept_over_a_training(clock, share, unit_seconds) -> None:
    budget = TimeBudget(share, clock)
    taken = 0
    for _ in range(20_000):
        clock.now += 0.01  # a step of 32 examples
        budget.saw(32)
        if budget.affords(100, measured_examples=32):
            clock.now += 100 * unit_seconds
            budget.charge(100 * unit_seconds, 100)
            taken += 1
    # The first event is taken on a guess from the training's own speed; every later one keeps the share.
    first = 100 * unit_seconds
    assert budget.spent <= share * budget.trained + first
    assert budget.trained == pytest.approx(200.0)
    if taken > 1:
        assert budget.overhead <= share
    most = int(share * 200.0 / first)
    # The guess, 3 s, has to fit before the first; then what was saved is spent.
    assert most - 1 <= taken <= max(most, 1)


def test_nothing_is_afforded_before_the_first_step(clock) -> None:
    budget = TimeBudget(0.05, clock)
    clock.now = 100.0
    assert not budget.affords(1, 1)


def test_the_first_price_is_guessed_from_the_training(clock) -> None:
    budget = TimeBudget(0.1, clock)
    clock.now = 10.0
    budget.saw(1000)  # 0.01 s an example; a unit over 100 examples: 3 s
    assert not budget.affords(1, 100)
    clock.now = 31.0
    budget.saw(2100)  # 3.1 s may be spent now
    assert budget.affords(1, 100)


def test_a_dear_event_is_remembered_for_a_while(clock) -> None:
    budget = TimeBudget(1.0, clock)
    clock.now = 100.0
    budget.saw(1)
    clock.now += 10.0
    budget.charge(10.0, 10)
    clock.now += 1.0
    budget.charge(1.0, 10)
    # Half of the former price stands, though the last event was cheaper still.
    assert budget.affords((100.0 - 11.0) / 0.5 - 1e-6, 1)
    assert not budget.affords((100.0 - 11.0) / 0.5 + 1e-6, 1)


def test_a_time_budget_leaves_events_out_and_says_what_it_chose(tmp_path, monkeypatch, clock) -> None:
    # A training step takes a second and a probe ten, so that a tenth allows one probe in a hundred steps.
    monkeypatch.setattr(_hessian_spectrum, "TimeBudget", lambda share: TimeBudget(share, clock))
    monkeypatch.setattr(_hessian_spectrum.time, "perf_counter", clock)

    class Slow(HessianSpectrum):
        def measure(self, *args):
            row = super().measure(*args)
            clock.now += 10.0 * self._probes
            return row

    class Steps(Plain):
        def on_train_batch_start(self, batch, batch_idx):
            clock.now += 1.0

    spectrum = Slow(
        k=2, probes=2, steps=3, max_matvecs=20, trace_max_matvecs=8, every_n_steps=1, budget=0.1, examples=8
    )
    trainer = fit(tmp_path, spectrum, module=Steps(), max_epochs=200)
    recorded = run_of(trainer).dataset("hessian_spectrum")
    assert (recorded.status == "ok").all()
    steps = len(recorded.step)
    spent = 10.0 * float(recorded.n_probes.sum())
    trained = float(trainer.global_step)
    assert 0 < spent <= 0.1 * trained + 20.0  # the first event is taken on a guess
    assert steps < trained / 50
    assert set(recorded.n_probes.values.tolist()) <= {1, 2}
    assert (recorded.overhead.values[1:] <= 0.1).all()
    density = recorded.density_weights.sum("node").values
    assert ((density[:, 1] > 0.99) == (recorded.n_probes.values == 2)).all()
