"""Numbers as a person reads them, and losses in bits."""

import math


def bits(nats: float) -> float:
    """Returns a loss in bits."""
    return nats / math.log(2)


def counted(number: int, noun: str) -> str:
    """Returns a number of things whose plural ends in s, like 1 epoch or 2,000 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def readable(size: int) -> str:
    """Returns bytes as a person reads them, like 16.6 MB; a kB is 1000 bytes."""
    value, units = float(size), iter(("bytes", "kB", "MB", "GB", "TB", "PB", "EB"))
    unit = next(units)
    for larger in units:
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Returns a time that a person can read, like 4 h 05 min, 3 min 20 s or 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
