"""Owns medians, spreads and ratios of a benchmark's samples, and the table that a person reads.
It must not know what was measured."""

import statistics


def median(samples: list[float]) -> float:
    return statistics.median(samples)


def spread(samples: list[float], unit: str = "s") -> str:
    """The median, and the least and the most in brackets."""
    return f"{median(samples):.2f} {unit} ({min(samples):.2f}–{max(samples):.2f})"


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Ours to theirs, round by round, since both of a round met the same machine."""
    return f"{median([a / b for a, b in zip(ours, theirs)]):.2f}"


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
