"""Draws curves: both axes in powers of ten, each line named at its end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WIDTH, HEIGHT = 790, 400
LEFT, TOP, RIGHT, BOTTOM = 60, 44, 260, 52  # margins; the right one holds the names
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by the colour-blind too
FONT = 'font-family="system-ui, sans-serif" font-size="12"'
APART = 15.0  # pixels between two names


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve.

    Args:
        name: of the file.
        title: above it.
        across: what the numbers below mean.
        up: what the numbers on the left mean.
        numbers: below, all above 0.
        lines: by their names, a value above 0 for each number.
    """

    name: str
    title: str
    across: str
    up: str
    numbers: Sequence[float]
    lines: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        lines = {name: [round(value, 2) for value in values] for name, values in self.lines.items()}
        return {"title": self.title, "across": self.across, "up": self.up, "numbers": self.numbers, "lines": lines}


def draw(curve: Curve) -> str:
    """Return a curve as SVG."""
    every = [value for values in curve.lines.values() for value in values]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    across = _axis(math.log10(curve.numbers[0]), math.log10(curve.numbers[-1]), LEFT, WIDTH - RIGHT)
    up = _axis(low, max(high, low + 1), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {FONT}>',
        f"<title>{escape(curve.title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<g font-size="15">{_text(LEFT, 20, curve.title)}</g>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, curve.across, anchor="middle"),
        _text(LEFT, TOP - 9, curve.up, colour="#555"),
        *_grid(curve, low, max(high, low + 1), across, up),
        *_lines(curve, across, up),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def short(number: float) -> str:
    """Write a number in the form of an axis: 20, 1k, 2.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return a function from a number to its pixel, between two powers of ten."""
    return lambda number: start + (math.log10(number) - low) / ((high - low) or 1) * (end - start)


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _grid(
    curve: Curve, low: int, high: int, across: Callable[[float], float], up: Callable[[float], float]
) -> Iterator[str]:
    for power in range(low, high + 1):
        y = up(10.0**power)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        yield _text(LEFT - 8, y + 4, short(10.0**power), anchor="end", colour="#555")
    for number in curve.numbers:
        x = across(number)
        yield f'<path d="M{x:.1f} {HEIGHT - BOTTOM}v5" stroke="#555"/>'
        yield _text(x, HEIGHT - BOTTOM + 19, short(number), anchor="middle", colour="#555")


def _lines(curve: Curve, across: Callable[[float], float], up: Callable[[float], float]) -> Iterator[str]:
    named: list[tuple[float, str, str]] = []
    for (name, values), colour in zip(curve.lines.items(), COLOURS, strict=False):
        points = [(across(number), up(value)) for number, value in zip(curve.numbers, values, strict=True)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
        named.append((points[-1][1], f"{name}: {short(float(f'{values[-1]:.3g}'))}", colour))
    lowest = -math.inf
    for y, name, colour in sorted(named):
        lowest = max(y + 4, lowest + APART)  # below the one above it, even where their lines meet
        yield _text(WIDTH - RIGHT + 10, lowest, name, colour=colour)
