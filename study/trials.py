"""What was tried in search of better recipes, in the order in which it was thought of."""

from typing import Any

from study.search import Search, Trial


def _trial(why: str, base: dict[str, Any] | None = None, **changes: Any) -> Trial:
    return Trial(why=why, changes={**(base or {}), **changes})


# Half the batch and twice the steps, so that as many characters are read.
_ALPHA = dict(dropout=0.0, schedule="cosine-by-step")
_ALPHA_HALF = _ALPHA | dict(
    warmup_steps=200, learning_rate=5e-3, batch_size=32, steps_per_epoch=400
)
_SMOOTH = dict(schedule="cosine-by-step", warmup_steps=200, learning_rate=2e-3)
_BETA = _SMOOTH | dict(learning_rate=3e-3, batch_size=32, steps_per_epoch=500)
_BETA_DECAY = _BETA | dict(dropout=0.05, weight_decay=0.5, decay="matrices")
_GAMMA = _SMOOTH | dict(dropout_on="outputs")
_GAMMA_DECAY = _SMOOTH | dict(weight_decay=0.5, decay="matrices")
_NAMES_DECAY = _SMOOTH | dict(optimizer="adamw", weight_decay=0.1, decay="matrices")

# fmt: off
SEARCHES: tuple[Search, ...] = (
    Search(dataset="shakespeare", model="alpha", epochs=10, trials=(
        _trial("what all others are held against"),
        _trial("a small model that sees its text 16 times does not overfit", dropout=0.0),
        _trial("a rate that falls smoothly may begin higher", _ALPHA,
               warmup_steps=100, learning_rate=5e-3),
        _trial("higher still", _ALPHA, warmup_steps=100, learning_rate=8e-3),
        _trial("twice the steps from as many characters", _ALPHA_HALF),
        _trial("both", _ALPHA_HALF, learning_rate=8e-3),
        _trial("four times the steps", _ALPHA_HALF,
               warmup_steps=400, batch_size=16, steps_per_epoch=800),
        _trial("windows twice as long, no more steps", _ALPHA_HALF,
               seq_len=256, steps_per_epoch=200),
        _trial("states carried from window to window", _ALPHA_HALF, carry_state=True),
        _trial("more decay, of the matrices alone", _ALPHA_HALF,
               weight_decay=0.1, decay="matrices"),
        _trial("a little dropout after all", _ALPHA_HALF, dropout=0.03),
    )),
    Search(dataset="shakespeare", model="beta", epochs=15, trials=(
        _trial("what all others are held against"),
        _trial("what was best for Astra-α; half the epochs, as it will overfit", _BETA,
               dropout=0.0, epochs=8),
        _trial("dropout that leaves the carried state alone", _BETA,
               dropout=0.2, dropout_on="outputs"),
        _trial("more of it", _BETA, dropout=0.35, dropout_on="outputs"),
        _trial("the study's dropout, half as much", _BETA, dropout=0.05),
        _trial("the second, and a higher rate", _BETA,
               dropout=0.2, dropout_on="outputs", learning_rate=5e-3),
        _trial("and more decay, of the matrices alone", _BETA,
               dropout=0.2, dropout_on="outputs", weight_decay=0.1, decay="matrices"),
        _trial("the carried state's own dropout was best: with much decay of the matrices",
               _BETA_DECAY),
        _trial("more decay still, in place of dropout", _BETA,
               dropout=0.0, weight_decay=1.0, decay="matrices"),
        _trial("dropout and decay, and twice the rate, as it was for Astra-α", _BETA_DECAY,
               learning_rate=6e-3),
        _trial("a higher rate still", _BETA_DECAY, learning_rate=9e-3),
        _trial("and higher", _BETA_DECAY, learning_rate=12e-3),
        _trial("as high a rate, and less dropout", _BETA_DECAY, learning_rate=9e-3, dropout=0.03),
        _trial("as high a rate, and more dropout", _BETA_DECAY, learning_rate=9e-3, dropout=0.1),
        _trial("as high a rate, and more decay", _BETA_DECAY,
               learning_rate=9e-3, weight_decay=1.0),
        _trial("again twice the steps", _BETA_DECAY,
               learning_rate=6e-3, batch_size=16, steps_per_epoch=1000),
    )),
    Search(dataset="shakespeare", model="gamma", epochs=20, trials=(
        _trial("what all others are held against"),
        _trial("dropout that leaves the carried state alone", _GAMMA, dropout=0.4),
        _trial("more of it", _GAMMA, dropout=0.5),
        _trial("as much, and half the epochs", _GAMMA, dropout=0.4, epochs=10),
        _trial("what was best for Astra-β: dropout of the states, and much decay", _GAMMA_DECAY),
        _trial("twice the rate", _GAMMA_DECAY, learning_rate=4e-3),
        _trial("twice the decay", _GAMMA_DECAY, learning_rate=4e-3, weight_decay=1.0),
        _trial("more dropout", _GAMMA_DECAY, learning_rate=4e-3, dropout=0.2),
    )),
    Search(dataset="names", model="alpha", epochs=35, trials=(
        _trial("what all others are held against"),
        _trial("a rate that falls smoothly, and half the epochs", _SMOOTH, epochs=16),
        _trial("dropout of what a layer hands up", _SMOOTH, dropout=0.2, dropout_on="outputs"),
        _trial("decay of the matrices", _NAMES_DECAY),
        _trial("both", _NAMES_DECAY, dropout=0.2, dropout_on="outputs"),
        _trial("more decay, a higher rate", _NAMES_DECAY, learning_rate=4e-3, weight_decay=0.3),
        _trial("more of both", _NAMES_DECAY, learning_rate=8e-3, weight_decay=0.5),
    )),
    Search(dataset="names", model="beta", epochs=40, trials=(
        _trial("what all others are held against"),
        _trial("dropout that leaves the carried state alone", _SMOOTH,
               dropout=0.4, dropout_on="outputs"),
        _trial("half the epochs", _SMOOTH, dropout=0.4, dropout_on="outputs", epochs=20),
        _trial("decay of the matrices", _NAMES_DECAY,
               dropout=0.4, dropout_on="outputs", epochs=20),
        _trial("the study's dropout, and more decay", _NAMES_DECAY, weight_decay=0.3),
        _trial("a higher rate, and more decay", _NAMES_DECAY,
               learning_rate=4e-3, weight_decay=0.5),
        _trial("and more dropout", _NAMES_DECAY,
               learning_rate=4e-3, weight_decay=0.5, dropout=0.2),
    )),
    Search(dataset="names", model="gamma", epochs=60, trials=(
        _trial("what all others are held against"),
        _trial("dropout that leaves the carried state alone, and a third of the epochs", _SMOOTH,
               dropout=0.5, dropout_on="outputs", epochs=20, learning_rate=1e-3),
        _trial("decay of the matrices", _NAMES_DECAY,
               dropout=0.5, dropout_on="outputs", epochs=20, learning_rate=1e-3),
        _trial("the study's dropout, more decay, half the epochs", _NAMES_DECAY,
               weight_decay=0.5, epochs=30),
        _trial("and more dropout", _NAMES_DECAY, weight_decay=0.5, dropout=0.3, epochs=30),
    )),
)
# fmt: on
"""All searches."""
