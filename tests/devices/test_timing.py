"""How long turns are taken, until what is wanted is certain."""

from __future__ import annotations

import time

from hwnas.devices.runner import timing
from hwnas.devices.runner.common import Model


class Moody(Model):
    """Takes so long, times what the round it is in does to all of them."""

    def __init__(self, ms: float, moods: dict[int, float], noise: tuple[float, ...] = (1.0,)) -> None:
        self.ms, self.moods, self.noise, self.turns = ms, moods, noise, 0

    def samples(self) -> list[float]:
        self.turns += 1
        return [self.ms * self.moods.get(self.turns, 1.0) * self.noise[self.turns % len(self.noise)]]


def _job(**changes: object) -> dict[str, object]:
    return {"rounds": 12, "precision": 0.01, "seconds": 0.5, "enough": 1, **changes}


def test_of_several_networks_the_ratio_has_to_be_certain() -> None:
    """The device is now three times as slow as then: no median is certain, but every ratio is."""
    moods = {turn: 3.0 if turn % 2 else 1.0 for turn in range(100_000)}
    found = timing.time_all([Moody(1.0, moods), Moody(2.0, moods)], _job(), lambda *_: None)
    assert len(found[0]) == 12
    started = time.monotonic()
    alone = timing.time_all([Moody(1.0, moods)], _job(), lambda *_: None)
    assert len(alone[0]) > 12 and time.monotonic() - started >= 0.5, "one alone can only be waited for"


def test_ratios_that_differ_from_turn_to_turn_are_not_certain() -> None:
    noisy = Moody(2.0, {}, noise=(1.0, 1.2, 0.8, 1.1, 0.9))
    found = timing.time_all([Moody(1.0, {}), noisy], _job(), lambda *_: None)
    assert len(found[0]) > 12


def test_there_are_enough_inferences_for_a_99th_percentile() -> None:
    assert 100 <= len(timing.time_all([Moody(1.0, {})], _job(enough=100, seconds=60), lambda *_: None)[0]) <= 110
    assert len(timing.time_all([Moody(1.0, {})], _job(enough=100, seconds=0), lambda *_: None)[0]) == 12
