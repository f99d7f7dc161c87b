"""Threefry, unrolled: random words from a key and a counter, for use in a compiled program."""

import jax.numpy as jnp
from jaxtyping import Array

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
"""Bits that a word is turned by in threefry's rounds, four at a time, in turn."""

PARITY = 0x1BD11BDA
"""Goes into threefry's third word of the key, so that no key leaves all of them zero."""


def threefry(key: tuple[Array, Array], block: tuple[Array, Array]) -> tuple[Array, Array]:
    """Returns the random words of blocks: Threefry-2x32 of 20 rounds, as under `jax.random`.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". With the rounds written
    one after another it is one pass over the memory; JAX's own is a loop on a CPU, which stores
    both words four times an iteration and takes up to three times as long.

    Args:
        key: two words, uint32.
        block: the two words that count the blocks, uint32 of any shape.
    """
    keys = *key, key[0] ^ key[1] ^ jnp.uint32(PARITY)
    first, second = block[0] + keys[0], block[1] + keys[1]
    for group in range(1, 6):
        for bits in ROTATIONS[(group - 1) % 2]:
            first = first + second
            second = first ^ ((second << bits) | (second >> (32 - bits)))
        first = first + keys[group % 3]
        second = second + keys[(group + 1) % 3] + jnp.uint32(group)
    return first, second
