"""Tests of what a training needs: memory against XLA's own account, refusals, advice."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from astra_jax.data import builtin_corpus
from astra_jax.data.splits import split_corpus
from astra_jax.errors import InputError
from astra_jax.machine import memory
from astra_jax.machine.memory import machine_memory
from astra_jax.presets import PRESETS, override
from astra_jax.training.sizing import Memory, advice, memory_needed, require_memory
from astra_jax.training.trainer import Keys, Trainer
from astra_jax.units import readable

ALPHA = PRESETS["shakespeare", "alpha"]


@pytest.mark.parametrize(
    "fields",
    [
        dict(),
        dict(num_layers=3, hidden_dim=96, embedding_dim=32, dropout=0.0),
        dict(hidden_dim=16, embedding_dim=256, batch_size=8, dtype="float64"),
        dict(hidden_dim=256, batch_size=2, seq_len=4),  # Little but parameters.
        dict(hidden_dim=256, num_layers=2, seq_len=1024),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("backend", "remat"), [("fused", False), ("fused", True), ("wavefront", False)], ids=str
)
def test_memory_is_about_what_xla_reserves(fields: dict, backend: str, remat: bool) -> None:
    preset = override(ALPHA, **fields)
    trainer = Trainer(preset, 200, backend=backend, remat=remat)
    with jax.enable_x64(preset.train.dtype == "float64"):
        split = split_corpus(builtin_corpus.play(), preset.data, Keys.from_seed(0).split)
        state = jax.eval_shape(trainer.init, jax.random.key(0))
        rows = jax.ShapeDtypeStruct((200, preset.data.batch_size), jnp.int32)
        run = jax.jit(
            lambda state, rows, count: trainer.run_steps(
                state, split.train, rows, 0, count, jax.random.key(0)
            )
        )
        account = run.lower(state, rows, 1).compile().memory_analysis()
    assert account is not None
    reserved = account.temp_size_in_bytes + account.argument_size_in_bytes
    needed = Memory.of(preset, remat=remat, backend=backend)
    assert needed.total == pytest.approx(reserved, rel=0.3)


def test_training_that_cannot_fit_is_refused_and_one_that_can_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for preset in PRESETS.values():
        require_memory(Memory.of(preset))
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**34)
    largest = dict(hidden_dim=2**16, num_layers=2**8), dict(batch_size=2**16)
    for fields in (*largest, dict(steps_per_epoch=2**24, batch_size=2**10)):
        with pytest.raises(InputError, match=r"^the training needs about .* this machine has .*B:"):
            require_memory(Memory.of(override(ALPHA, **fields)))
    need = Memory.of(ALPHA).total
    monkeypatch.setattr(memory, "machine_memory", lambda: need)
    require_memory(Memory.of(ALPHA))
    monkeypatch.setattr(memory, "machine_memory", lambda: need - 1)
    with pytest.raises(InputError, match="a smaller --batch-size, --seq-len"):
        require_memory(Memory.of(ALPHA))
    with pytest.raises(InputError, match=r"B: go on with --remat, or where there is more$"):
        require_memory(Memory.of(ALPHA), begun=True)
    monkeypatch.setattr(memory, "machine_memory", lambda: 1)
    with pytest.raises(InputError, match=r"bytes: go on where there is more$"):
        require_memory(Memory.of(ALPHA), begun=True, remat=True)


def test_each_accelerator_holds_its_share_and_cores_hold_all_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert memory_needed(ALPHA, num_devices=4) == Memory.of(ALPHA)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    whole = Memory.of(ALPHA)
    share = memory_needed(ALPHA, num_devices=4)
    assert 4 * share.activations == whole.activations
    assert 4 * share.batches == whole.batches
    rest = dict(activations=0, batches=0)
    assert dataclasses.replace(share, **rest) == dataclasses.replace(whole, **rest)
    assert memory_needed(ALPHA, num_runs=7, num_devices=4) == whole.of_runs(2, 2)


def test_machine_has_memory_of_a_plausible_size() -> None:
    assert 2**28 < machine_memory() < 2**50


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "missing")))
    whole = machine_memory()
    for text, expected in {"max\n": whole, "1000000\n": 10**6}.items():
        limit.write_text(text)
        assert machine_memory() == expected


def test_advice_is_given_where_sizes_are_far_apart_only() -> None:
    assert advice(10**6, 10**6) == advice(10**6, 10**5) == advice(10**5, 2 * 10**6) == ""
    assert "1,000,001 parameters for 100,000 training characters, 10 for each: " in advice(
        10**6 + 1, 10**5
    )
    assert "21 characters for each: a larger --hidden-dim" in advice(1000, 21_000)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (16_621_680, "16.6 MB"),
        (4_800_000_000_000_000, "4.8 PB"),
    ],
)
def test_bytes_are_told_as_a_person_reads_them(size: int, text: str) -> None:
    assert readable(size) == text
