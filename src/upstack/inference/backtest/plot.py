"""Cost against loss, with intervals, as SVG. Colours are told apart in grey, and named in the legend."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from upstack.inference.backtest.verdict import Tried, Verdict

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 460, 84, 20, 54, 56
_COLOURS = {
    "single": "#b0581c",
    "agree": "#1c6fb0",
    "cascade": "#1f7a3d",
    "precall": "#7a3d8f",
    "confidence": "#6b6b1f",
}


def draw(verdict: Verdict, title: str, max_loss: float) -> str:
    """Draw every plan tried: what it costs of the reference's cost, and its excess loss."""
    plans = [each for each in verdict.tried if each.cost_ratio < 2]
    high = max([max_loss * 2, *(min(each.high, each.excess_loss + 0.1) for each in plans)])
    low = min([-max_loss, *(max(each.low, each.excess_loss - 0.1) for each in plans)])
    right = max([1.05, *(each.cost_ratio * 1.05 for each in plans)])

    def x(ratio: float) -> float:
        return _LEFT + ratio / right * (_WIDTH - _LEFT - _RIGHT)

    def y(excess: float) -> float:
        return _TOP + (high - excess) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def mark(each: Tried) -> Iterator[str]:
        colour = _COLOURS.get(each.strategy, "#444")
        at, top, bottom = x(each.cost_ratio), y(min(each.high, high)), y(max(each.low, low))
        words = f"{each.strategy}: {', '.join(each.routes)}; cost {each.cost_ratio:.3f}, excess {each.excess_loss:+.4f}"
        yield f'<g stroke="{colour}"><title>{escape(words)} ({each.judged_on})</title>'
        yield f'<path d="M{at:.1f} {top:.1f}V{bottom:.1f}" stroke-opacity=".35"/>'
        filled = colour if each.proved else "#fff"
        yield f'<circle cx="{at:.1f}" cy="{y(each.excess_loss):.1f}" r="4" fill="{filled}"/></g>'

    zero, limit = y(0.0), y(max_loss)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="40" fill="#555">Filled: proved. Bars hold however often they are looked at.</text>',
        f'<path d="M{_LEFT} {zero:.1f}H{_WIDTH - _RIGHT}" stroke="#999"/>',
        f'<path d="M{_LEFT} {limit:.1f}H{_WIDTH - _RIGHT}" stroke="#c22" stroke-dasharray="5 4"/>',
        f'<text x="{_WIDTH - _RIGHT}" y="{limit - 5:.1f}" text-anchor="end" fill="#c22">tolerated {max_loss:g}</text>',
    ]
    lines += [
        f'<text x="{x(tick):.1f}" y="{_HEIGHT - 34}" text-anchor="middle" fill="#555">{tick:g}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    lines += [
        f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">{value:+.3f}</text>'
        for value in sorted({low, 0.0, max_loss, high})
    ]
    for each in plans:
        lines += mark(each)
    lines.append(f'<rect x="{x(1.0) - 4:.1f}" y="{zero - 4:.1f}" width="8" height="8"><title>do nothing</title></rect>')
    lines.append(
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 14}" text-anchor="middle">'
        "cost, of the reference's (square: do nothing)</text>"
    )
    lines.append(f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">excess loss</text>')
    names = [name for name in _COLOURS if any(each.strategy == name for each in plans)]
    for at, name in enumerate(names):
        place = _WIDTH - _RIGHT - 80 * (len(names) - at)
        lines.append(
            f'<circle cx="{place}" cy="36" r="4" fill="{_COLOURS[name]}"/><text x="{place + 8}" y="40">{name}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])
