"""Texts as characters: a prompt in, what a model makes of it out, until its words have ended."""

from collections.abc import Generator, Iterator

import numpy as np
from jaxtyping import Array, Int, Key

from astra_jax.data.vocabulary import Vocabulary
from astra_jax.errors import InputError
from astra_jax.model import GRULanguageModel
from astra_jax.sampling.draws import MAX_DRAWS
from astra_jax.sampling.sampler import CHUNK, Sampler
from astra_jax.sampling.strategies import Strategy, TopK

WORD_LENGTH, TEXT_LENGTH = 20, 200
"""New characters by default: the longest word of the names study, the text of the other."""

NUM_WORDS = 20
"""Words that are drawn at once by default: enough to see what a model makes of them."""


class Writer:
    """A model and its characters, to write any number of texts with."""

    def __init__(self, model: GRULanguageModel, vocabulary: Vocabulary):
        """Takes a model's parameters as they are now.

        Args:
            model: what predicts.
            vocabulary: its characters. One with a start token begins every text with it, unseen;
                one with an end token ends a text there.

        Raises:
            InputError: the model has another number of characters.
        """
        if len(vocabulary) != model.config.vocab_size:
            raise InputError(
                f"the vocabulary has {len(vocabulary):,} tokens and the model "
                f"{model.config.vocab_size:,}: give the vocabulary that the model was trained with"
            )
        self._sampler, self._vocabulary = Sampler(model), vocabulary

    def generate(
        self,
        prompt: str,
        strategy: Strategy,
        key: Key[Array, ""],
        *,
        num: int = 1,
        length: int | None = None,
        stateful: bool = True,
    ) -> list[str]:
        """Returns texts that begin with the prompt: what `stream` yields, in one piece each."""
        pieces = self.stream(prompt, strategy, key, num=num, length=length, stateful=stateful)
        return ["".join(text) for text in zip(*pieces, strict=True)]

    def stream(
        self,
        prompt: str,
        strategy: Strategy,
        key: Key[Array, ""],
        *,
        num: int = 1,
        length: int | None = None,
        stateful: bool = True,
        chunk: int = CHUNK,
    ) -> Generator[list[str], None, None]:
        """Writes texts that begin with the prompt, piece by piece. Input is checked at the call.

        A start token that the model draws is left out: it stands for no letter, and a model trained
        for more than a few steps does not draw it. Forbidding it would raise the other characters'
        shares; the notebook does not either.

        Args:
            prompt: what to begin with; may be empty only if there is a start token.
            strategy: how a character is picked.
            key: decides the draws. A longer text begins with the shorter one.
            num: number of texts.
            length: most new characters of each; None is 20 for words and 200 for running text.
            stateful: see `Sampler.stream_ids`.
            chunk: see there.

        Yields:
            The next piece of each text, the prompt at first.

        Raises:
            InputError: the prompt is empty or has a character that is not in the vocabulary, a
                number is not positive, top-k is larger than the vocabulary, or the texts are more
                than the machine can hold.
        """
        vocabulary = self._vocabulary
        ids = _prompt_ids(vocabulary, prompt)
        if length is None:
            length = TEXT_LENGTH if vocabulary.end_id is None else WORD_LENGTH
        for name, value in {"num": num, "length": length, "chunk": chunk}.items():
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if isinstance(strategy, TopK) and strategy.k > len(vocabulary):
            raise InputError(
                f"top-k must be at most {len(vocabulary)}, the size of the vocabulary, "
                f"got {strategy.k}"
            )
        if num * length > MAX_DRAWS:
            raise InputError(
                f"num times length must be at most {MAX_DRAWS:,}, got {num:,} times {length:,}: "
                "ask for fewer texts, or shorter ones"
            )
        self._sampler.prepare(num)
        prompts = np.tile(np.asarray(ids, np.int32), (num, 1))
        chunks = self._sampler.stream_ids(prompts, length, strategy, key, stateful, chunk)
        return _pieces([prompt] * num, chunks, vocabulary)


def _pieces(
    prompts: list[str], chunks: Iterator[Int[np.ndarray, "N C"]], vocabulary: Vocabulary
) -> Generator[list[str], None, None]:
    """Yields the prompts, then what chunks of ids say, until every text has met its end token."""
    yield prompts
    num = len(prompts)
    ended = np.zeros(num, bool)
    decoders = [vocabulary.decoder() for _ in range(num)]
    for chunk in chunks:
        ends = np.cumsum(chunk == vocabulary.end_id, axis=1) > 0
        shown = ~(ended[:, None] | ends) & (chunk != vocabulary.start_id)
        new = zip(decoders, chunk, shown, strict=True)
        yield [decode(row[seen]) for decode, row, seen in new]
        ended |= ends[:, -1:].any(axis=1)
        if ended.all():
            break
    rest = [decode(np.zeros(0, np.int32), final=True) for decode in decoders]
    if any(rest):  # Bytes of a character that was not finished.
        yield rest


def _prompt_ids(vocabulary: Vocabulary, prompt: str) -> list[int]:
    ids = [int(i) for i in vocabulary.encode(prompt)]
    if vocabulary.end_id in ids:
        raise InputError(f"the prompt {prompt!r} contains the end token: remove it")
    if vocabulary.start_id is not None:
        ids.insert(0, vocabulary.start_id)
    if not ids:
        raise InputError("the prompt is empty: give at least one character")
    return ids
