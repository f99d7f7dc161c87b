"""Tests of how a training is asked to stop."""

import signal

import pytest

from astra_jax.errors import TIME_IS_UP
from astra_jax.training import stopping
from astra_jax.training.stopping import SIGNALS, StopRequest


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_a_second_acts_at_once(number: signal.Signals) -> None:
    acted: list[int] = []
    before = {each: signal.signal(each, lambda n, _: acted.append(n)) for each in SIGNALS}
    try:
        ours = [signal.getsignal(each) for each in SIGNALS]
        with StopRequest() as stop:
            assert stop.number is None
            signal.raise_signal(number)
            assert (stop.number, acted) == (number, [])
            for each in SIGNALS:
                signal.raise_signal(each)
            assert (stop.number, acted) == (number, [*SIGNALS])
        with StopRequest():
            pass
        assert [signal.getsignal(each) for each in SIGNALS] == ours
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_time_is_up_from_the_deadline_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5.0
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now)
    stop = StopRequest(deadline=6.0)
    assert stop.number is None
    now = 6.0
    assert stop.number == TIME_IS_UP
    assert StopRequest().number is None
