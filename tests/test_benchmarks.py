"""The benchmarks on tiny shapes: what is counted, who is held to what, what is written down."""

import dataclasses
import json
import math
import mmap
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from astra_jax.config import ModelConfig
from astra_jax.errors import InputError
from astra_jax.presets import PRESETS, override
from astra_jax.storage import marked_pages
from astra_jax.training.replicas import Replicas
from astra_torch.data import IGNORE
from astra_torch.models import GRULayer, build_model
from astra_torch.weights import to_model
from benchmarks import (
    budget,
    contest,
    floor,
    growth,
    lengths,
    memory,
    records,
    rounds,
    sampling,
    seeds,
    tables,
    torch_hoisted,
    writing,
)
from benchmarks.agreement import BOUNDS, DisagreementError, hold_gradients
from benchmarks.lineup import Rules
from benchmarks.peers import EVAL, OURS, PEERS, SAMPLE, TRAIN, choose
from benchmarks.rounds import Spread, Timed, run_rounds, summarize
from benchmarks.setting import Precision, Setting
from benchmarks.time_limit import time_limit
from benchmarks.work import Matmul, Work, bytes_read_per_character, products_of_a_character
from tests.commands import call
from tests.test_imports import ROOT

MODEL = ModelConfig(
    vocab_size=11, embedding_dim=5, hidden_dim=7, num_layers=2, dropout=0.25, layer_norm=False
)
TINY = dict(embedding_dim=5, hidden_dim=8, num_layers=2, batch_size=4, seq_len=6)


def silent(message: str) -> None:
    del message


def rules(*peers: str, repeats: int = 2) -> Rules:
    return Rules(peers=peers, repeats=repeats, seconds=1e-3, tell=silent)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting(override(PRESETS["shakespeare", "beta"], **TINY), devices=1, threads=1)


def flops_by_torch(training: bool, batch_size: int, seq_len: int) -> int:
    model = build_model(MODEL, "shakespeare").eval()
    # Torch spares itself the first state's gradient, unless somebody wants it.
    h_0 = model.initial_state(batch_size).requires_grad_(training)
    tokens = torch.zeros(batch_size, seq_len, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits, _ = model(tokens, h_0)
        if training:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_operations_are_those_that_torch_counts(training: bool):
    work = Work(model=MODEL, batch_size=3, seq_len=4, training=training)
    assert work.flops == flops_by_torch(training, 3, 4)
    # Twelve characters are more than the table's eleven rows: projecting these is a little less.
    least = sum(shape.flops * count for shape, count in work.least().items())
    spared = 3 * 2 * 5 * 7 * (12 - 11) * (3 if training else 1)
    assert least == work.flops - spared
    short = Work(model=MODEL, batch_size=3, seq_len=3, training=training)
    assert short.least() == short.equations()


def test_a_character_reads_what_the_sampler_reads(setting: Setting):
    model = setting.preset.model
    stepper = to_model(setting.arrays, model, setting.layout, "float32").stepper(1)
    looked_up = stepper.known[0].nbytes + sum(a.nbytes for a in jax.tree.leaves(stepper[1:]))
    head = sum(array.nbytes for name, array in setting.arrays.items() if name.startswith("fc"))
    assert head
    assert bytes_read_per_character(model) == looked_up + head


def test_a_character_needs_all_products_but_those_that_are_looked_up():
    work = Work(model=MODEL, batch_size=9, seq_len=1, training=False)
    needed = sum(one.flops * n for one, n in products_of_a_character(MODEL, 9).items())
    assert needed == work.flops - 3 * 2 * 9 * 5 * 7


def test_turns_alternate_and_a_drift_of_the_machine_does_not_touch_the_ratios():
    turns: list[str] = []

    class Scripted:
        def __init__(self, name: str, factor: float):
            self.name, self.factor = name, factor

        def warm_up(self, seconds: float) -> None:
            pass

        def turn(self) -> float:
            turns.append(self.name)
            return self.factor * 1.5 ** ((len(turns) - 1) // 2)  # Slower from round to round.

    samples = run_rounds([Scripted("a", 2.0), Scripted("b", 6.0)], 4, silent)
    assert turns == ["a", "b"] * 4
    found = summarize(samples)
    assert found["b"].ratio == found["b"].ratio._replace(median=3.0, low=3.0, high=3.0)
    low, median, high = np.percentile(samples["b"], [25, 50, 75])
    np.testing.assert_allclose(found["b"].seconds, (median, low, high))
    assert Spread.of([5.0]) == (5.0, 5.0, 5.0)


def test_a_turn_has_as_many_units_as_fit_into_its_time(monkeypatch: pytest.MonkeyPatch):
    now = 0.0

    def work(units: int) -> None:
        nonlocal now
        now += 0.004 * units

    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now)
    contender = Timed("worker", work, least=2, most=100)
    for seconds, units in ((0.0, 2), (0.05, 12), (1.0, 100)):
        contender.warm_up(seconds)
        assert contender.units == units
    assert contender.turn() == pytest.approx(0.004)


CONTENDERS = (OURS, "notebook", "torch-hoisted", "torch-gru", "nnx-rnn")


@pytest.fixture(scope="module")
def trained(setting: Setting) -> dict[str, Any]:
    return contest.contest(TRAIN, setting, rules(*CONTENDERS, repeats=3))


def test_everyone_who_claims_our_function_computes_it(setting: Setting, trained: dict[str, Any]):
    record = trained
    assert list(record["seconds"]) == [*CONTENDERS, record["floor"]]
    assert list(record["agreement"]) == [name for name in CONTENDERS[1:] if PEERS[name].same]
    assert all(0 < one["gradient"] < 1e-4 for one in record["agreement"].values())
    assert all(len(taken) == 3 and min(taken) > 0 for taken in record["seconds"].values())
    assert sum(one["count"] for one in record["products"]) == sum(
        Work(model=setting.preset.model, batch_size=4, seq_len=6, training=True).least().values()
    )


def test_evaluations_agree_batch_by_batch():
    pytest.importorskip("onnxruntime")
    padded = Setting(override(PRESETS["names", "gamma"], **TINY), devices=1, threads=1)
    assert (padded.batch(0)[1] == IGNORE).any()
    names = [OURS, "notebook", "torch-hoisted", "onnxruntime"]
    record = contest.contest(EVAL, padded, rules(*names))
    assert list(record["agreement"]) == names[1:]


def _reset_after(layer: GRULayer, projected: Tensor) -> Tensor:
    cell, outputs = layer.grucell, []
    h = projected.new_zeros(projected.shape[1], 8)
    for at_t in projected:
        x_r, x_z, x_n = at_t.split(8, dim=1)
        r, z = torch.sigmoid(x_r + cell.Wrh(h)), torch.sigmoid(x_z + cell.Wzh(h))
        h = torch.lerp(h, torch.tanh(x_n + r * cell.Wh(h)), z)
        outputs.append(h)
    return torch.stack(outputs)


def _without_bias(layer: GRULayer, inputs: Tensor) -> Tensor:
    cell = layer.grucell
    parts = (cell.Wrx.weight, cell.Wzx.weight, cell.Wx.weight)
    bias = torch.cat([cell.Wrx.bias, cell.Wzx.bias + cell.bias_z, cell.Wx.bias])
    return torch.nn.functional.linear(inputs, torch.cat(parts), bias)


@pytest.mark.parametrize(
    ("what", "name", "broken", "precision"),
    [
        (TRAIN, "_project", _without_bias, "highest"),
        (EVAL, "_recur", _reset_after, "highest"),
        (TRAIN, "_recur", _reset_after, "bf16"),
        (EVAL, "_project", _without_bias, "bf16"),
    ],
    ids=lambda value: getattr(value, "__name__", value).strip("_"),
)
def test_a_contender_that_computes_something_else_is_no_contender(
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    name: str,
    broken: object,
    precision: Precision,
):
    setting = dataclasses.replace(setting, precision=precision)
    if precision == "bf16":  # In float32 all are held in the tests above.
        contest.contest(what, setting, rules(OURS, "torch-hoisted", repeats=1))
    monkeypatch.setattr(torch_hoisted, name, broken)
    with pytest.raises(DisagreementError, match="torch-hoisted"):
        contest.contest(what, setting, rules(OURS, "torch-hoisted"))


@pytest.mark.parametrize("precision", BOUNDS)
def test_gradients_are_held_also_where_the_losses_agree(precision: Precision):
    ours = {"a": np.ones(3), "b": np.array([0.5, 2.0])}
    theirs = ours | {"b": np.array([0.5, 2.2])}
    assert hold_gradients("peer", (1.0, ours), (1.0, ours), precision).gradient == 0
    with pytest.raises(DisagreementError, match=r"peer.*gradient of b"):
        hold_gradients("peer", (1.0, ours), (1.0, theirs), precision)


def test_a_sampler_that_forgets_its_state_is_no_contender(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writing, "MANY", 3)
    record = writing.writing_contest(setting, rules(OURS, "notebook", "torch-stateful"))
    assert record["many"] == 3
    assert len(np.unique(writing.prompts(3, 11), axis=0)) == 3  # Or mixed-up texts were the same.
    assert len(record["seconds"]) == 7
    (table,) = tables.tables_of(record | {"what": SAMPLE, **described(setting)})
    for least, texts in (("floor", ""), ("floor_of_many", ", 3 texts")):
        row = next(row for row in table.rows if row[0] == f"{OURS}{texts}")
        assert row[3] == "1"
        paired = zip(
            *(record["seconds"][one] for one in (OURS + texts, record[least])), strict=True
        )
        assert row[-1] == f"{Spread.of([ours / floor for ours, floor in paired]).median:.3g}"
    monkeypatch.setitem(writing._MAKE, "torch-stateful", sampling.notebook)
    with pytest.raises(DisagreementError, match="torch-stateful does not write"):
        writing.writing_contest(setting, rules(OURS, "torch-stateful"))
    monkeypatch.setitem(writing._MAKE, "notebook", sampling.torch_stateful)
    with pytest.raises(DisagreementError, match="notebook does not write"):
        writing.writing_contest(setting, rules(OURS, "notebook"))


def test_who_cannot_take_part_is_told_and_the_others_go_on(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
):
    def fail(setting: Setting) -> None:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(contest, "compiled_model", fail)
    record = contest.contest(EVAL, setting, rules(OURS, "notebook-compiled"))
    assert record["missing"] == {"notebook-compiled": "RuntimeError: no compiler"}
    (table,) = tables.tables_of(record | {"what": EVAL, **described(setting)})
    assert "notebook-compiled is missing: RuntimeError: no compiler" in table.notes


def described(setting: Setting) -> dict[str, object]:
    return {"preset": setting.preset.to_dict(), "precision": "highest"}


def test_time_limits_end_what_takes_too_long():
    with pytest.raises(TimeoutError, match="took longer than"), time_limit(0.01):
        time.sleep(2)


def test_growth_finds_the_exponent_of_a_power_law(setting: Setting):
    sizes = [8, 16, 64, 128]
    assert math.isclose(growth.exponent(sizes, [3e-3 * size**1.5 for size in sizes]), 1.5)
    base = dict(B=2, T=3, H=4, L=1)
    record = growth.growth(setting, rules(OURS), base, dict(T=[3, 6, 12]))
    assert list(record["seconds"]) == [f"B=2 T={time} H=4 L=1" for time in (3, 6, 12)]
    taken = [Spread.of(times).median for times in record["seconds"].values()]
    found = record["sweeps"]["T"]
    per_char = [1e6 * seconds / 2 / time for seconds, time in zip(taken, (3, 6, 12), strict=True)]
    np.testing.assert_allclose(found["us_per_char"], per_char)
    np.testing.assert_allclose(found["exponent"], math.log2(taken[2] / taken[0]) / 2)
    np.testing.assert_allclose(found["last_exponent"], math.log2(taken[2] / taken[1]))


def test_texts_of_each_length_are_timed_unless_they_take_too_long(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
):
    record = lengths.lengths_contest(setting, rules(OURS), [4, 8])
    (table,) = tables.tables_of(record | {"what": "length", **described(setting)})
    assert [row[0] for row in table.rows] == ["4", "8"]
    pairs = list(zip(*(record["seconds"][name] for name in "48"), strict=True))
    more = Spread.of([short - long for short, long in pairs]).median
    assert table.rows[0][3].startswith(f"{Spread.of([a / b for a, b in pairs]).median:.3g} (")
    assert table.rows[0][4] == f"{1e3 * 4 * more:.1f}"
    monkeypatch.setattr(lengths, "LONGEST_SECONDS", 0.0)
    record = lengths.lengths_contest(setting, rules(OURS), [4, 8])
    assert (list(record["seconds"]), list(record["missing"])) == (["4"], ["8"])


def test_runs_of_several_seeds_take_turns_in_every_way_and_agree(
    monkeypatch: pytest.MonkeyPatch,
):
    shared = Setting(override(PRESETS["names", "alpha"], **TINY), devices="all", threads=1)
    record = seeds.seeds_contest(shared, rules(OURS), num_runs=2)
    assert list(record["seconds"])[:2] == [OURS, seeds.ALONE]
    assert len(record["seconds"]) == 5
    assert record["agreement"][OURS]["loss"] == 0 <= record["agreement"][seeds.ALONE]["loss"] < 1e-6
    (table,) = tables.tables_of(record | {"what": "seeds", **described(shared)})
    ours = summarize(record["seconds"])[OURS].seconds.median
    assert table.rows[0][1] == f"{1000 * ours / 2:.4g}"
    assert table.rows[0][-1] == f"{2 * 24 / ours:,.0f}"
    apart = Replicas._apart
    monkeypatch.setattr(Replicas, "_apart", lambda self, rows: apart(self, np.asarray(rows)[::-1]))
    with pytest.raises(DisagreementError):
        seeds.seeds_contest(shared, rules(OURS), num_runs=2)


def test_the_peak_is_that_of_what_runs_between():
    meter = memory._HostMeter()
    size = 64 * 2**20

    def touch(num_bytes: int) -> None:
        # Pages of its own: an array could take what the process has kept of earlier ones.
        with mmap.mmap(-1, num_bytes) as block:
            for place in range(0, num_bytes, mmap.PAGESIZE):
                block[place] = 1

    touch(2 * size)  # A higher peak before; it does not count.
    before = meter.reset()
    touch(size)
    assert 0.9 * size < meter.peak() - before < 1.5 * size


def test_tables_are_made_of_records_and_leave_the_text_around_them(
    setting: Setting, trained: dict[str, Any], tmp_path: Path
):
    record = trained | {"memory": {OURS: dict(training=3_000_000, gradient=2_000_000)}}
    sweep = dict(sizes=[1, 2], us_per_char=[3.0, 5.0], exponent=1.7, last_exponent=1.7)
    grown = {"base": dict(B=1, T=8), "sweeps": {"B": sweep, "T": sweep}}
    made = [record | {"what": TRAIN}, grown | {"what": "growth"}]
    records.write(tmp_path / "tiny.json", [one | described(setting) for one in made])
    readme = tmp_path / "README.md"
    readme.write_text(
        f"before\n{marked_pages.BEGIN}\nold\n{marked_pages.END}\nafter\n", encoding="utf-8"
    )
    result = call("benchmark.py", "--tables", tmp_path)
    assert result.code == 0, result.err
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{marked_pages.BEGIN}\n")
    assert text.endswith(f"{marked_pages.END}\nafter\n")
    assert "old" not in text
    ours = summarize(trained["seconds"])[OURS].seconds.median
    short = next(line for line in text.splitlines() if line.startswith("| [tiny](tiny.json) |"))
    assert short.startswith(f"| [tiny](tiny.json) | highest | {1000 * ours:.4g} | ")
    row = next(line for line in text.splitlines() if line.startswith("| ours |"))
    for cell in (f"{1000 * ours:.4g}", "1", f"{24 / ours:,.0f}", "3", "2"):
        assert f"| {cell} |" in row
    assert "| torch-gru ¹ |" in text
    assert (tmp_path / "tiny-growth.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "other.json").write_text(json.dumps({"records": []}))
    assert call("benchmark.py", "--tables", tmp_path).code == 2


def test_tables_of_a_record_say_what_it_says(setting: Setting):
    drift = np.array([1.0, 2.0, 4.0])  # Of the machine, from round to round.
    seconds = {
        OURS: list(0.5 * drift),
        "torch-hoisted": list(drift * [2.0, 2.5, 3.0]),
        "least": list(drift * [0.5, 0.25, 0.25]),
    }
    record = dict(seconds=seconds, floor="least", characters=24, flops=4_000_000_000)
    (table,) = tables.tables_of(record | described(setting) | {"what": TRAIN})
    ours, other, _ = (row[3:] for row in table.rows)
    assert ours == ("1", "24", "4.0", "50 %")
    assert other == ("5 (4.5 – 5.5)", "5", "0.8", "10 %")
    one = {OURS: [2e-6], "notebook": [8e-6], "memory": [1e-6]}
    together = {"products": [1e-5], writing.many(OURS): [2e-5], writing.many("notebook"): [5e-5]}
    floors = dict(floor="memory", floor_of_many="products", many=writing.MANY)
    record = floors | dict(seconds=one | together, flops=4_000_000, bytes=5_000)
    (table,) = tables.tables_of(record | described(setting) | {"what": SAMPLE})
    rows = {row[0]: row[3:] for row in table.rows}
    assert rows[OURS] == ("1", "500,000", "2")
    assert rows["notebook"] == ("4", "125,000", "8")
    assert rows[writing.many(OURS)] == ("1", "12,800,000", "2")
    assert rows[writing.many("notebook")] == ("2.5", "5,120,000", "5")
    assert rows["products"] == ("0.5", "25,600,000", tables.NONE)
    assert "0.01 MB of weights, read once a step at the 5.0 GB/s" in table.notes[0]
    assert "4.0 MFLOP of products a step at the 400 GFLOP/s" in table.notes[0]


def test_a_floor_is_the_fastest_ways_time_of_every_product(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0

    def way(seconds: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += seconds

        return run

    small, large = Matmul(2, 3, 4), Matmul(64, 512, 512)
    ways = {small: (way(0.5), way(0.2)), large: (way(0.3), way(0.4))}
    monkeypatch.setattr(floor, "_runners", lambda shape, _: ways[shape])
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now)
    least = floor.MatmulFloor(Counter({small: 6, large: 2}), setting)
    least.warm_up(0.0)
    expected = 6 * 0.2 / floor.products_a_call(small) + 2 * 0.3 / floor.products_a_call(large)
    assert least.turn() == pytest.approx(expected)


def test_what_a_file_holds_of_the_same_model_and_machine_stays_and_no_other_is_overwritten(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "tiny.json"
    assert records.read_same(path, setting) == {}
    made = [{"what": what} | described(setting) for what in (SAMPLE, TRAIN)]
    records.write(path, made)
    assert list(records.read_same(path, setting).values()) == made[::-1]
    taken = [{"new": True}, KeyboardInterrupt]
    monkeypatch.setitem(records.MEASUREMENTS, EVAL, mock.Mock(side_effect=taken))
    monkeypatch.setitem(records.MEASUREMENTS, SAMPLE, mock.Mock(side_effect=taken[1:]))
    # What is not measured anew stays, also if what would have taken its place is interrupted.
    with pytest.raises(KeyboardInterrupt):
        list(records.measure_all(dict.fromkeys([EVAL, SAMPLE], rules(OURS)), setting, path))
    found = records.read_same(path, setting)
    assert list(found) == [TRAIN, EVAL, SAMPLE]
    assert (found[EVAL]["new"], found[SAMPLE]) == (True, made[0])
    with pytest.raises(InputError, match=r"measured otherwise \(preset, precision\)"):
        records.read_same(path, dataclasses.replace(setting, precision="bf16"))
    monkeypatch.setattr(records, "vector_instructions", lambda: "another")
    with pytest.raises(InputError, match=r"measured otherwise \(vector_instructions\)"):
        records.read_same(path, setting)
    with pytest.raises(InputError, match=r"missing is no folder: make it first"):
        records.read_same(tmp_path / "missing" / "tiny.json", setting)
    path.write_text("{}")
    with pytest.raises(InputError, match="is no record of benchmarks"):
        records.read_same(path, setting)


def test_a_process_whose_memory_cannot_be_measured_loses_nothing(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
):
    def measured(name: str, setting: Setting, one: memory.Pass, limit: float) -> int:
        if (name, one) == (OURS, "gradient"):
            raise RuntimeError("killed")
        return 3_000_000

    monkeypatch.setattr(memory, "_in_fresh_process", measured)
    record = memory.memory_of_all(setting, rules(OURS, "notebook"))
    (table,) = tables.tables_of(record | {"what": "memory", **described(setting)})
    assert table.rows == ((OURS, "3", tables.NONE), ("notebook", "3", "3"))
    assert table.notes == ("ours's memory, gradient, is missing: killed",)


def test_a_gpu_that_only_one_framework_has_is_refused(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="PyTorch has an accelerator and JAX has none"):
        Setting(setting.preset)


def test_unknown_peers_are_one_line_that_lists_the_known():
    result = call("benchmark.py", "--peers", "notebook,jax")
    assert result.code == 2
    assert result.err.startswith("error: unknown peers jax: choose from ours, scan,")
    assert result.err.count("\n") == 1
    assert choose("torch-gru,notebook", [TRAIN, SAMPLE], "highest") == {
        TRAIN: [OURS, "notebook", "torch-gru"],
        SAMPLE: [OURS, "notebook"],
    }
    assert choose(None, ["start"], "highest") == {"start": [OURS]}
    everyone = {how: choose(None, [TRAIN], how)[TRAIN] for how in ("highest", "bf16")}
    assert set(everyone["bf16"]) - set(everyone["highest"]) == {"notebook-float32"}
    for what, who in (("start", "notebook"), (SAMPLE, "torch-gru"), (TRAIN, "notebook-float32")):
        result = call("benchmark.py", "--what", what, "--peers", who)
        assert result.code == 2
        assert result.err.startswith(f"error: {who} cannot take part in --what {what} with")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--threads 0", "--threads must be at least 1, got 0"),
        (
            "--what growth --hidden-dim 9",
            "growth takes its own sizes: leave out --hidden-dim",
        ),
        ("--what sample --devices 1", "--what sample takes its own devices: leave out"),
    ],
)
def test_flags_that_would_mean_nothing_are_refused(flags: str, message: str):
    result = call("benchmark.py", *flags.split())
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert message in result.err


def test_a_single_step_from_zeros_has_equal_gradients_that_are_all_zero(setting: Setting):
    single = dataclasses.replace(setting, preset=override(setting.preset, seq_len=1))
    record = contest.contest(TRAIN, single, rules(OURS, "torch-hoisted", repeats=1))
    assert record["agreement"]["torch-hoisted"]["gradient"] < 1e-5


def test_the_first_step_of_a_training_ends_its_process(corpora: dict[str, str], tmp_path: Path):
    flags = ["--hidden-dim=4", "--seq-len=8", "--no-compile-cache", "--quiet"]
    flags += ["--corpus", corpora["shakespeare"], "--out", str(tmp_path / "run")]
    command = [sys.executable, "-m", "benchmarks.first_step", "scripts/train.py", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "run" / "config.json").exists()
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.usefixtures("unchecked")  # What stands for arrays of a program has no shape.
def test_a_budget_finds_every_part_of_a_step(setting: Setting):
    _, origins = budget.compiled(setting)
    found = Counter(origins.parts.values())
    scans = {f"{way} scan: {kind}" for way in ("forward", "backward") for kind in budget.KINDS}
    rest = {"outside the scans: products", "random bits", "head and loss", "optimiser", "batch"}
    assert scans | rest <= set(found)
    # A step has as many products backward as forward, three a layer.
    assert found["forward scan: products"] == found["backward scan: products"]
    with mock.patch.object(budget, "steps_of_a_call", return_value=2):
        measured = budget.profile(setting)
    assert (measured["steps"], measured["devices"]) == (2, 1)
    assert set(found) >= set(measured["parts_ms"]) >= rest
    assert sum(measured["parts_ms"].values()) > 0
