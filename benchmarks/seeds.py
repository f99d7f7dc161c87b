"""Runs of several seeds: in one program, and one after another."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from astra_jax.data.splits import Split
from astra_jax.data.vocabulary import Vocabulary
from astra_jax.machine.placement import Placement
from astra_jax.training.engines import Engine, OneRun
from astra_jax.training.options import FitOptions
from astra_jax.training.replicas import MapRuns, Replicas, all_at_once, one_by_one
from astra_jax.training.trainer import MAX_STEPS_PER_CALL, Keys
from benchmarks.agreement import hold_losses
from benchmarks.jax_peers import STEPS_PER_EPOCH
from benchmarks.lineup import Lineup, Rules
from benchmarks.peers import OURS
from benchmarks.rounds import Timed
from benchmarks.setting import NUM_BATCHES, Setting

NUM_RUNS = 8

CHECKED = 2
"""Steps whose losses are held to ours: the second has gone through an update."""

ALONE = "one after another"


class _Runs:
    """Runs that some engines train, each engine its own."""

    def __init__(self, setting: Setting, engines: Sequence[Engine], keys: Sequence[Keys]):
        order = np.arange(MAX_STEPS_PER_CALL) % NUM_BATCHES
        share = len(keys) // len(engines)
        self._rows = np.stack([np.asarray(setting.rows)[order]] * share)
        self._engines, self._step = engines, 0
        self._states = [
            engine.load([engine.trainer.init(key.init) for key in keys[at * share :][:share]])
            for at, engine in enumerate(engines)
        ]

    def train(self, num_steps: int) -> np.ndarray:
        """Does steps of every run, and returns the losses of each."""
        losses, at = [], self._step
        for place, engine in enumerate(self._engines):
            done = engine.run_steps(self._states[place], self._rows, at, at, num_steps)
            self._states[place] = done.state
            losses += [np.asarray(part.loss_nats) for part in engine.parts(done.metrics)]
        self._step += num_steps
        found = np.stack(losses)[:, :num_steps]
        if not (np.isfinite(found).all() and found.all()):
            raise ArithmeticError("a training that is timed diverged: it does no further steps")
        return found


def seeds_contest(setting: Setting, rules: Rules, num_runs: int = NUM_RUNS) -> dict[str, Any]:
    """Times a step of several runs: as `--seeds` does it, as runs alone do, and in other ways.

    Args:
        setting: model, batch and recipe of each.
        rules: how it is timed; other contenders do not take part.
        num_runs: how many seeds.

    Returns:
        The record, ready for JSON; its unit is a step of every run.

    Raises:
        DisagreementError: the ways do not come to the same losses.
    """
    keys = [Keys.from_seed(seed) for seed in range(num_runs)]
    lineup = Lineup(rules)
    with setting.arithmetic():
        reference: list[np.ndarray] = []
        for name, engines in _ways(setting, keys).items():
            rules.tell(name)
            runs = _Runs(setting, engines, keys)
            reference.append(runs.train(CHECKED))
            agreement = hold_losses(name, reference[0], reference[-1], setting.precision)
            timed = Timed(name, runs.train, CHECKED, MAX_STEPS_PER_CALL)
            lineup.enter([(timed, agreement)])
        record = lineup.run()
    data = setting.preset.data
    return record | {
        "runs": num_runs,
        "characters": num_runs * data.batch_size * data.seq_len,
    }


def _ways(setting: Setting, keys: Sequence[Keys]) -> dict[str, Sequence[Engine]]:
    preset, devices = setting.preset, setting.devices
    split = Split(
        setting.data,
        setting.data,
        Vocabulary.of_bytes(),  # Which nothing here reads.
        setting.preset.data,
    )
    programs = FitOptions(devices=devices).trainer(preset, STEPS_PER_EPOCH)
    trainer, _ = FitOptions(devices=1).trainer(preset, STEPS_PER_EPOCH)
    dropout = [key.dropout for key in keys]
    shared, single = (Placement.of_runs(each, len(keys)) for each in (devices, 1))

    def together(place: Placement, map_runs: MapRuns | None = None) -> list[Engine]:
        return [Replicas(trainer, place, [split] * len(keys), dropout, map_runs)]

    ways: dict[str, Sequence[Engine]] = {
        OURS: together(shared),
        ALONE: [OneRun(*programs, split, key) for key in dropout],
        "one by one, on one device": together(single, one_by_one),
        "all at once, on one device": together(single, all_at_once),
    }
    if shared.mesh.size > 1:
        ways["all at once, on every device"] = together(shared, all_at_once)
    return ways
