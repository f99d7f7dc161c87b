import jax.numpy as jnp
import numpy as np

from astra_jax.losses import IGNORE, cross_entropy, cross_entropy_sum


def test_cross_entropy_is_the_mean_negative_log_likelihood_of_what_counts():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 5)).astype(np.float32)
    targets = np.array([[1, 4, IGNORE], [IGNORE, 0, 2]], np.int32)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counted = [(0, 0, 1), (0, 1, 4), (1, 1, 0), (1, 2, 2)]
    expected = -np.log([probabilities[place] for place in counted])
    total, count = cross_entropy_sum(jnp.asarray(logits), jnp.asarray(targets))
    assert count == 4
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-6)
    mean = cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-6)


def test_targets_of_a_byte_all_count():
    logits = jnp.zeros((1, 1, 256)).at[..., 156].set(2.0)
    targets = jnp.array([[156]])
    total, count = cross_entropy_sum(logits, targets.astype(jnp.uint8))
    assert (total, count) == cross_entropy_sum(logits, targets)
    assert count == 1
