"""An interrupt waits until what must be whole is whole."""

import signal
import threading

import pytest

from landscape._interrupts import interrupts_waiting


def test_an_interrupt_comes_afterwards():
    done = []

    def work():
        with interrupts_waiting():
            with interrupts_waiting():
                signal.raise_signal(signal.SIGINT)
                done.append(1)
            done.append(2)
        done.append(3)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_handlers_are_left_alone():
    def within():
        with interrupts_waiting():
            seen.append(signal.getsignal(signal.SIGINT))

    seen = []
    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        within()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen[1] == signal.SIG_IGN
