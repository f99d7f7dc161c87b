"""The recurrence against its equations, written once more in plain NumPy, and each backend's
gradients against those of the plain scan."""

import functools
import re
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from astra_jax.errors import InputError
from astra_jax.gru import BACKENDS, Embedded, GRUWeights, gru, stepper
from astra_jax.gru.inputs import dense
from astra_jax.machine.environment import vector_instructions

DROPOUT = 0.3
VOCAB = 3

DOT = r" dot\(%([\w.-]+), %([\w.-]+)\)"
"""A product in a compiled program's text, with the names of its operands."""


def random_inputs(time: int, batch: int, width: int, hidden: int, num_layers: int = 2) -> Any:
    """Returns layers, ids, embedding table, first states and dropout's survivors."""
    rng = np.random.default_rng(0)
    layers = [
        GRUWeights(
            rng.normal(size=(3, size, hidden)) / np.sqrt(size),  # pyright: ignore[reportArgumentType]
            rng.normal(size=(3, hidden, hidden)) / np.sqrt(hidden),  # pyright: ignore[reportArgumentType]
            rng.normal(size=(3, hidden)),  # pyright: ignore[reportArgumentType]
            rng.normal(size=(2, hidden)),  # pyright: ignore[reportArgumentType]
        )
        for size in [width] + [hidden] * (num_layers - 1)
    ]
    ids = rng.integers(VOCAB, size=(time, batch)).astype(np.int32)
    ids[-1, -1] -= VOCAB  # Counted from the table's end.
    table = rng.normal(size=(VOCAB, width))
    h_0 = rng.normal(size=(num_layers, batch, hidden))
    keep = rng.random((num_layers, time, batch, hidden)) >= DROPOUT
    return layers, ids, table, h_0, keep


def equations(weights: GRUWeights, inputs, h, keep, dropout: float):
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    (w_rx, w_zx, w_nx), (w_rh, w_zh, w_nh) = weights.kernel_ih, weights.kernel_hh
    (b_rx, b_zx, b_nx), (b_r, b_z) = weights.bias_ih, weights.bias_hh
    outputs = []
    for x, kept in zip(inputs, keep, strict=True):
        r = sigmoid(x @ w_rx + b_rx + h @ w_rh + b_r)
        z = sigmoid(x @ w_zx + b_zx + h @ w_zh + b_z)
        n = np.tanh(x @ w_nx + b_nx + (r * h) @ w_nh)
        h = ((1 - z) * h + z * n) * kept / (1 - dropout)
        outputs.append(h)
    return np.stack(outputs)


def single(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32) if a.dtype == float else a, tree)


SHAPES = [(1, 1, 2, 3), (1, 4, 3, 2, 3), (6, 1, 5, 4, 1), (5, 3, 4, 7)]
"""T, B, E, H, and L where it is not 2."""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gru_computes_its_equations(shape, backend: str):
    layers, ids, table, h_0, keep = random_inputs(*shape)
    with jax.enable_x64(True):
        on_device = jax.device_put((layers, Embedded(table, ids), h_0))
        start = on_device[0], on_device[1], on_device[2]
        run = jax.jit(functools.partial(gru, backend=backend), static_argnums=4)
        hiddens, h_n = run(*start, jax.device_put(keep), DROPOUT)
        undropped, _ = run(*start)
    expected = plain = table[ids]
    for index, weights in enumerate(layers):
        expected = equations(weights, expected, h_0[index], keep[index], DROPOUT)
        plain = equations(weights, plain, h_0[index], np.ones_like(keep[index]), 0.0)
        np.testing.assert_allclose(hiddens[index], expected, rtol=0, atol=2e-14)
        np.testing.assert_allclose(undropped[index], plain, rtol=0, atol=2e-14)
        np.testing.assert_array_equal(h_n[index], hiddens[index][-1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropped_outputs_are_handed_up_and_whole_states_carried_on(backend: str):
    layers, ids, table, h_0, keep = random_inputs(*SHAPES[-1])
    with jax.enable_x64(True):
        on_device = jax.device_put((layers, Embedded(table, ids), h_0, keep))
        how = dict(dropout=DROPOUT, dropout_on="outputs", backend=backend)
        hiddens, h_n = jax.jit(functools.partial(gru, **how))(*on_device)
    expected = table[ids]
    for index, weights in enumerate(layers):
        whole = equations(weights, expected, h_0[index], np.ones_like(keep[index]), 0.0)
        expected = whole * keep[index] / (1 - DROPOUT)
        np.testing.assert_allclose(hiddens[index], expected, rtol=0, atol=2e-14)
        np.testing.assert_allclose(h_n[index], whole[-1], rtol=0, atol=2e-14)


@functools.cache
def gradients_of_the_scan(shape, dropped: bool):
    arguments = jax.device_put(random_inputs(*shape))
    return gradients("scan", arguments, arguments[-1] if dropped else None, embedded=False)


def gradients_program(
    backend: str, arguments: Any, keep: Any, *, embedded: bool, remat: bool = False, dtype=None
):
    """Returns the compiled gradients of a random function of every output, and its inputs."""
    layers, ids, table, h_0, _ = arguments
    rng = np.random.default_rng(1)
    time, batch = ids.shape
    sizes = (len(layers), time, batch, h_0.shape[-1])
    to_hidden, to_last = (
        jnp.asarray(rng.normal(size=size), h_0.dtype) for size in (sizes, h_0.shape)
    )

    def value(layers, table, h_0):
        inputs = Embedded(table, ids)
        inputs = inputs if embedded else dense(inputs)
        rate = 0.0 if keep is None else DROPOUT
        hiddens, h_n = gru(
            layers, inputs, h_0, keep, rate, dtype=dtype, backend=backend, remat=remat
        )
        return jnp.sum(jnp.stack(hiddens) * to_hidden) + jnp.sum(h_n * to_last)

    inputs = layers, table, h_0
    return jax.jit(jax.value_and_grad(value, (0, 1, 2))).lower(*inputs).compile(), inputs


def gradients(*arguments: Any, **options: Any):
    """Returns what `gradients_program` computes."""
    program, inputs = gradients_program(*arguments, **options)
    return program(*inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dropped", [True, False], ids=["dropout", "no dropout"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_backend_has_the_gradients_of_the_scan(shape, dropped: bool, backend: str):
    with jax.enable_x64(True):
        arguments = jax.device_put(random_inputs(*shape))
        keep = arguments[-1] if dropped else None
        expected = gradients_of_the_scan(shape, dropped)
        # Compiling takes the time of these tests, so not everything is gone through with all.
        ways = [(dropped, False)] + [(False, True)] * (dropped and shape == SHAPES[-1])
        for embedded, remat in ways:
            found = gradients(backend, arguments, keep, embedded=embedded, remat=remat)
            for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
                assert np.abs(other).max() > 1e-3 or other.size < 9  # Nothing here is dead.
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "scan"])
@pytest.mark.parametrize(
    ("shape", "products", "rounding"),
    [
        ((40, 3, 6, 16), "float32", 1e-8),
        ((40, 3, 6, 16), "bfloat16", 1e-3),
        ((1, 4, 3, 2, 3), "float32", 1e-8),
        ((6, 1, 5, 4, 1), "float32", 1e-8),
    ],
    ids=str,
)
def test_a_backend_is_as_near_to_the_truth_as_the_scan(
    shape: tuple[int, ...], products: str, rounding: float, backend: str
):
    arguments = random_inputs(*shape)
    with jax.enable_x64(True):
        exact = jax.device_put(arguments)
        truth = jax.tree.leaves(gradients("scan", exact, exact[-1], embedded=True))
    rounded = single(arguments)
    keep = jax.device_put(arguments[-1])
    errors = {}
    for name in ("scan", backend):
        found = jax.tree.leaves(gradients(name, rounded, keep, embedded=True, dtype=products))
        pairs = zip(map(np.asarray, found), map(np.asarray, truth), strict=True)
        errors[name] = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
    assert max(errors["scan"]) > rounding  # Of that type indeed.
    assert max(errors[backend]) < 4 * max(errors["scan"])


@pytest.mark.skipif(
    vector_instructions() not in ("avx512_bf16", "amx_bf16"),
    reason="this processor multiplies no bfloat16",
)
def test_products_of_bfloat16_are_not_widened_before_they_are_taken():
    arguments = single(random_inputs(4, 16, 32, 64))
    program, _ = gradients_program(
        "fused", arguments, jax.device_put(arguments[-1]), embedded=True, dtype=jnp.bfloat16
    )
    text = program.as_text() or ""
    shapes = dict(re.findall(r"%([\w.-]+) = (\w+\[[\d,]*\])", text))
    products = [[shapes[name] for name in pair] for pair in re.findall(DOT, text)]
    assert sum(pair[0].startswith("bf16") for pair in products) >= 6 * 3 + 3 * 3
    for pair in products:
        # What there is one of for each character, not for each step, may be as exact as it likes.
        of_the_table = any(str(VOCAB) in re.findall(r"\d+", shape)[1:] for shape in pair)
        assert of_the_table or all(shape.startswith("bf16") for shape in pair), pair


@pytest.mark.parametrize("backend", BACKENDS)
def test_gru_sees_no_future(backend: str):
    layers, ids, table, h_0, _ = single(random_inputs(8, 2, 3, 5))
    inputs = table[ids]
    run = jax.jit(functools.partial(gru, backend=backend))
    before, _ = run(layers, inputs, h_0)
    after, _ = run(layers, inputs.at[5].add(1.0), h_0)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[:5], other[:5])
        assert (one[5:] != other[5:]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gru_keeps_states_in_float32_under_bfloat16_products(backend: str):
    layers, ids, table, h_0, keep = single(random_inputs(5, 2, 3, 4))
    inputs = Embedded(table, jax.device_put(ids)), h_0, jax.device_put(keep), DROPOUT
    run = jax.jit(functools.partial(gru, backend=backend), static_argnums=4)
    full, _ = run(layers, *inputs)
    run = jax.jit(functools.partial(gru, backend=backend, dtype=jnp.bfloat16), static_argnums=4)
    half, h_n = run(layers, *inputs)
    assert half[-1].dtype == h_n.dtype == jnp.float32
    difference = float(jnp.abs(half[-1] - full[-1]).max())
    # bfloat16 has 8 bits: the products differ in the third digit, and no more than that.
    assert 1e-4 < difference < 3e-2


@pytest.mark.parametrize("num", [1, 2], ids=["one text", "many texts"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_step_by_step_is_all_at_once(shape, num: int):
    with jax.enable_x64(True):
        layers, ids, table, h, _ = jax.device_put(random_inputs(*shape))
        run = jax.jit(functools.partial(gru, backend="scan"))
        hiddens, _ = run(layers, Embedded(table, ids), h)
        step = jax.jit(functools.partial(stepper, num=num))(layers, table)
        go_on = jax.jit(lambda step, now, h: step(now, h))
        for time, now in enumerate(ids):
            h = go_on(step, now, h)
            for one, other in zip(h, hiddens, strict=True):
                np.testing.assert_allclose(one, other[time], rtol=0, atol=2e-14)


@pytest.mark.parametrize("num", [1, 2], ids=["one text", "many texts"])
def test_steps_keep_states_in_float32_under_bfloat16_products(num: int):
    layers, ids, table, h_0, _ = single(random_inputs(1, 2, 3, 4))
    inputs = Embedded(table, jax.device_put(ids))
    _, expected = gru(layers, inputs, h_0, dtype=jnp.bfloat16, backend="scan")
    half, full = (
        stepper(layers, table, dtype, num=num)(jnp.asarray(ids[0]), h_0)
        for dtype in (jnp.bfloat16, None)
    )
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, expected, rtol=0, atol=1e-6)
    assert float(jnp.abs(half - full).max()) > 1e-4


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("width", "kept", "other"), [(512, "bf16", "f32"), (256, "f32", "bf16")])
def test_a_single_text_reads_large_kernels_of_bfloat16_as_they_are_and_small_ones_widened(
    width: int, kept: str, other: str
):
    layers, ids, table, h_0, _ = single(random_inputs(1, 1, 3, width))
    step = stepper(layers, table, jnp.bfloat16, num=1)

    def write(step, h):
        return lax.fori_loop(0, 9, lambda _, h: step(jnp.asarray(ids[0]), h), h)

    text = jax.jit(write).lower(step, h_0).compile().as_text() or ""
    (loop,) = re.findall(r"^.*? while\(", text, re.M)
    assert f" {kept}[{2 * width},{width}]" in loop
    assert f" {other}[{2 * width},{width}]" not in loop


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_call_outside_of_a_program_compiles_nothing(
    backend: str, remat: bool, caplog: pytest.LogCaptureFixture
):
    layers, ids, table, h_0, _ = single(random_inputs(4, 1, 2, 3))
    inputs = Embedded(table, jax.device_put(ids))
    first, _ = gru(layers, inputs, h_0, backend=backend, remat=remat)
    with jax.log_compiles():
        second, _ = gru(layers, inputs, h_0, backend=backend, remat=remat)
        assert "Compiling" not in caplog.text
        gru(layers, inputs, h_0, dtype=jnp.bfloat16, backend=backend, remat=remat)
    assert "Compiling" in caplog.text
    np.testing.assert_array_equal(first[-1], second[-1])


@pytest.mark.usefixtures("unchecked")
def test_gru_refuses_what_does_not_fit():
    layers, ids, table, h_0, keep = single(random_inputs(4, 3, 5, 6))
    inputs = Embedded(table, jax.device_put(ids))
    with pytest.raises(InputError, match="unknown GRU backend 'fast': choose one of scan"):
        gru(layers, inputs, h_0, backend="fast")
    transposed = [layers[0]._replace(kernel_ih=layers[0].kernel_ih.swapaxes(1, 2)), layers[1]]
    wrong = r"kernel_ih of layer 0 has shape \(3, 6, 5\), expected \(3, 5, 6\)"
    with pytest.raises(InputError, match=wrong):
        gru(transposed, inputs, h_0)
    with pytest.raises(InputError, match="keep has shape"):
        gru(layers, inputs, h_0, jnp.asarray(keep[:, :, :1]))
    for wrong_h_0 in (h_0[:1], h_0[0], h_0[..., :0], jnp.zeros(())):
        with pytest.raises(InputError, match="h_0 has shape"):
            gru(layers, inputs, wrong_h_0)
    whole = jax.tree.map(lambda a: a.astype(jnp.int32), (layers, dense(inputs), h_0))
    with pytest.raises(InputError, match="type of h_0 is int32, expected one of floating-point"):
        gru(*whole)
    step = stepper(layers, table, num=1)
    with pytest.raises(InputError, match=r"ids have shape \(2,\), expected \(1,\)"):
        step(ids[0, :2], h_0[:, :1])
    half = dense(inputs).astype(jnp.bfloat16)
    with pytest.raises(InputError, match="type of inputs is bfloat16, expected that of h_0, fl"):
        gru(layers, half, h_0)
    with pytest.raises(InputError, match="kernel_ih of layer 0 is float32, expected that of h_0"):
        gru(layers, half, h_0.astype(jnp.bfloat16))
    with pytest.raises(InputError, match="unknown dropout_on 'x': choose one of states, outputs"):
        gru(layers, inputs, h_0, dropout_on=cast(Any, "x"))
    with pytest.raises(InputError, match="dropout must be at least 0 and below 1, got 1"):
        gru(layers, inputs, h_0, dropout=1.0)
    with pytest.raises(InputError, match=r'float64 .* in float32: call .*"jax_enable_x64", True'):
        gru(layers, inputs, h_0, dtype=jnp.float64)
    with pytest.raises(InputError, match="there is no layer to run"):
        gru([], inputs, h_0)
    whole = dense(inputs)
    for nothing in (whole[:0], whole[:, :0]):
        with pytest.raises(InputError, match=r"inputs have shape .*, expected \[T, B, E\]"):
            gru(layers, nothing, h_0)


@pytest.mark.parametrize(
    ("platform", "hidden", "state", "why"),
    [
        ("METAL", 8, jnp.float32, "runs on cpu, gpu, tpu, not on METAL"),
        ("gpu", 8, jnp.float64, "has states of float32 on a gpu, got float64"),
        ("gpu", 256, jnp.float32, "at most 128 KiB a gate on a gpu, got 256 hidden units of 4"),
        ("tpu", 1025, jnp.float32, "at most 4096 KiB a gate on a tpu, got 1025 hidden units of 4"),
    ],
)
def test_the_kernel_runs_or_says_why_not(
    platform: str, hidden: int, state: Any, why: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    arguments = random_inputs(2, 2, 3, hidden, num_layers=1)
    with jax.enable_x64(True), pytest.raises(InputError, match=why):
        layers, ids, table, h_0, _ = jax.device_put(arguments)
        layers, table, h_0 = jax.tree.map(lambda a: a.astype(state), (layers, table, h_0))
        gru(layers, Embedded(table, ids), h_0, backend="pallas")
