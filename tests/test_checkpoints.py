from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.errors import InputError, StorageError
from astra_jax.experiments import restoring
from astra_jax.presets import PRESETS, override
from astra_jax.runs.checkpoints import KEEP_LATEST, Checkpoints, read_beside_writer
from astra_jax.runs.metrics import History
from astra_jax.storage.hashing import hash_arrays
from astra_jax.training.trainer import Trainer
from tests.trainings import TEXT, Begin

TRAINER = Trainer(override(PRESETS["names", "gamma"], embedding_dim=3, hidden_dim=5), 1)


def state_of(seed: int, trainer: Trainer = TRAINER):
    return trainer.init(jax.random.key(seed))


def test_a_state_comes_back_to_the_bit(tmp_path: Path):
    with Checkpoints(tmp_path / "new", keep=KEEP_LATEST) as checkpoints:
        assert checkpoints.latest_step is None
        for step in range(KEEP_LATEST + 2):
            checkpoints.save(step, state_of(step), {"step": step})
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.latest_step == KEEP_LATEST + 1
        restored, record = checkpoints.restore(jax.eval_shape(lambda: state_of(0)))
    assert record == {"step": KEEP_LATEST + 1}
    expected = state_of(KEEP_LATEST + 1)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    kept = {path.name for path in (tmp_path / "new").iterdir()}
    assert kept == {str(KEEP_LATEST), str(KEEP_LATEST + 1)}


def test_a_run_from_before_states_were_carried_is_still_read(begin: Begin):
    class State(NamedTuple):  # As it was then.
        step: Any
        params: Any
        opt_state: Any

    run, _ = begin(TEXT)
    state = Trainer(run.preset, 7).init(jax.random.key(0))._replace(step=jnp.int32(7))
    record = run.identity() | {"history": History().to_dict()}
    with Checkpoints(run.checkpoints, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(7, State(*state[:3]), record)
    restored = restoring.restore_state(run)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_reader_begins_anew_where_a_writer_was_quicker(tmp_path: Path):
    like, steps = jax.eval_shape(lambda: state_of(0)), []
    with Checkpoints(tmp_path, keep=1) as writer:
        writer.save(1, state_of(1), {"step": 1})

        def read(checkpoints: Checkpoints) -> dict[str, Any]:
            steps.append(checkpoints.latest_step)
            if steps == [1]:  # It has chosen the first one, which now goes.
                writer.save(2, state_of(2), {"step": 2})
                writer.wait()
            return checkpoints.restore(like).record

        writer.wait()
        assert read_beside_writer(tmp_path, read) == {"step": 2}
    assert steps == [1, 2]


@pytest.mark.parametrize(
    "change", [{"preset": {}}, {"corpus_sha256": 5}, {"history": 3}, {"history": {"epochs": [0]}}]
)
def test_a_record_that_is_no_runs_is_refused(change: dict[str, Any], begin: Begin):
    run, _ = begin(TEXT)
    record = run.identity() | {"history": History().to_dict()} | change
    with Checkpoints(run.checkpoints, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(0, Trainer(run.preset, 7).init(jax.random.key(0))._asdict(), record)
    with pytest.raises(InputError):
        restoring.restore_state(run)


def test_only_who_writes_removes_what_is_half_written(tmp_path: Path):
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(1, state_of(1), {})
    half = tmp_path / "2.orbax-checkpoint-tmp"
    half.mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 1
        checkpoints.restore(jax.eval_shape(lambda: state_of(0)))
        with pytest.raises(InputError, match="open to be read"):
            checkpoints.save(3, state_of(3), {})
    assert half.exists()
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(3, state_of(3), {})
    assert not half.exists()


@pytest.mark.parametrize("change", [dict(hidden_dim=6), dict(num_layers=2), dict(optimizer="adam")])
def test_a_checkpoint_of_another_shape_is_refused(change: dict, tmp_path: Path):
    other = Trainer(override(TRAINER.preset, **change), 1)
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(1, state_of(0), {})
        with pytest.raises(InputError, match=r"does not fit the run's config.json in \d+ of \d+"):
            checkpoints.restore(jax.eval_shape(lambda: state_of(0, other)))


def test_a_checkpoint_of_another_type_is_refused(tmp_path: Path):
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(1, {"a": jnp.zeros(3)}, {})
        with pytest.raises(
            InputError, match=r"a is \(\(3,\), 'float32'\), expected \(\(3,\), 'int"
        ):
            checkpoints.restore({"a": jax.ShapeDtypeStruct((3,), jnp.int32)})


def test_a_damaged_checkpoint_is_refused(tmp_path: Path):
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(1, state_of(0), {})
    damaged = 0
    for path in (tmp_path / "1").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:-500])
            damaged += 1
    assert damaged
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match="cannot be read"):
        checkpoints.restore(jax.eval_shape(lambda: state_of(0)))


def test_a_checkpoint_older_than_the_newest_is_not_dropped_without_a_word(tmp_path: Path):
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(3, {"weights": np.ones(2)}, {})
        for step in (2, 3):
            with pytest.raises(StorageError, match=f"checkpoint {step}|Step {step} already"):
                checkpoints.save(step, {"weights": np.ones(2)}, {})
        assert checkpoints.latest_step == 3


def test_no_checkpoint_is_said_so(tmp_path: Path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match="no checkpoint"):
        checkpoints.restore({"a": jnp.zeros(3)})


# Orbax's threads may still be at it when the first of them has found the damage.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path):
    state, rng = state_of(0), np.random.default_rng(0)
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(1, state, {"loss": 1.5})
    files = sorted(path for path in (tmp_path / "1").rglob("*") if path.is_file())
    refused = 0
    for path in files * 2:
        whole = path.read_bytes()
        if not whole:
            continue
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            with Checkpoints(tmp_path) as checkpoints:
                restored, record = checkpoints.restore(jax.eval_shape(lambda: state_of(0)))
        except InputError as error:
            refused += "handler" not in str(error)  # Of Orbax's, which did not go wrong first.
        else:  # Where nothing that is read has changed.
            assert record == {"loss": 1.5}
            for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
                assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
        path.write_bytes(whole)
    assert refused > 4  # There are 12 to 19 files, and of some of them nothing is read.


def test_a_record_that_was_changed_is_refused(tmp_path: Path):
    with Checkpoints(tmp_path, keep=KEEP_LATEST) as checkpoints:
        checkpoints.save(1, state_of(0), {"loss": 1.5})
    path = tmp_path / "1" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("1.5", "0.5"))
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match="its sha256 is"):
        checkpoints.restore(jax.eval_shape(lambda: state_of(0)))


def test_a_hash_tells_types_and_shapes() -> None:
    kinds = [((2, 3), "f4"), ((3, 2), "f4"), (6, "f4"), (3, "f8"), (6, "i4")]
    assert len({hash_arrays({"a": np.zeros(*kind)}) for kind in kinds}) == len(kinds)
