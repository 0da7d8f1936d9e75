"""Maps over (p, n) as inline SVG in the colours of the page they stand on, light or dark."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from goal_kernels.analysis.landscape import Analysis
from goal_kernels.analysis.numerics import lattice
from goal_kernels.training.report.charts import Axis

WIDTH, HEIGHT = 250, 244  # user units; text of 12 stays legible where two maps share a phone
LEFT, TOP, SIDE = 40, 6, 200
CELLS = 48  # a side of a map
SEEDS = 8  # a side, of the lines of flow
LENGTH, PACE = 0.2, 0.02  # of a line of flow and of its steps, similarities
BRIGHTEST = 0.98  # quantile of |values| that gets the full colour; poles would pale the rest

POSITIVE, NEGATIVE, ANCHORS = (54, 108, 224), (222, 104, 30), (24, 160, 100)

MAP_STYLE = """
.maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr));gap:12px}
.maps figure{padding:10px 10px 4px}.maps .note{margin:2px 0 6px}
svg .frame{fill:none;stroke:var(--rule)}
svg .flow{fill:none;stroke:var(--ink);stroke-width:1.1;stroke-linecap:round}
svg .tip{fill:var(--ink);stroke:none}
svg .even{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 4}
svg .balance{fill:none;stroke:var(--s3);stroke-width:2.4}
svg .path{fill:none;stroke:var(--good);stroke-width:2}
svg .begin{fill:var(--card);stroke:var(--good);stroke-width:2}svg .end{fill:var(--good)}
"""
"""What maps need beside the style of the report."""

_P = Axis(-1.0, 1.0, LEFT, LEFT + SIDE)
_N = Axis(-1.0, 1.0, TOP + SIDE, TOP)


def full_colour(values: Tensor) -> float:
    """The size of values that gets the full colour: a high quantile, at least 1e-12."""
    sizes = values.abs()[values.isfinite()]
    return max(torch.quantile(sizes, BRIGHTEST).item(), 1e-12) if len(sizes) else 1.0


def heat(values: Tensor, full: float, strength: float = 0.9, colour: tuple[int, ...] = ()) -> str:
    """An SVG image of values [S, S], p along the first dimension: blue above 0, orange below.

    What is 0 or NaN is transparent, so that a map fits a light page and a dark one.
    Args: full: the size that gets the full colour. colour: instead of blue.
    """
    shown = values.nan_to_num(0.0, full, -full).T.flip(0)  # rows from the top, n upwards
    sides = torch.tensor([colour or POSITIVE, NEGATIVE], dtype=torch.uint8, device="cpu")
    opacity = (shown.abs() / full).clamp(max=1).sqrt() * (255 * strength)
    pixels = torch.cat([sides[(shown < 0).long()], opacity.to(torch.uint8)[:, :, None]], dim=2)
    uri = base64.b64encode(_png(pixels)).decode("ascii")
    return (
        f'<image x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{uri}"/>'
    )


def _png(pixels: Tensor) -> bytes:
    """A PNG of uint8 [H, W, 4] RGBA."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + bytes(row.reshape(-1).tolist()) for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def flow(analysis: Analysis) -> str:
    """Lines along which a step of descent moves (p, n): p by the pull, n by minus the push.

    The thicker the stronger; a dot where nothing moves.
    """
    p, n = lattice(SEEDS)
    speed = torch.stack(analysis.weights(p, n)).nan_to_num(0.0).norm(dim=0)
    lines = [torch.stack([p, n], dim=1)]
    for _ in range(round(LENGTH / PACE)):
        middle = lines[-1] + _direction(analysis, lines[-1]) * (PACE / 2)
        further = lines[-1] + _direction(analysis, middle) * PACE
        inside = (further.abs() <= 1).all(dim=1, keepdim=True)
        lines.append(torch.where(inside, further, lines[-1]))
    strength = (speed / full_colour(speed)).clamp(max=1).sqrt()
    drawn = []
    for line, share in zip(torch.stack(lines, dim=1).tolist(), strength.tolist(), strict=True):
        width = 0.5 + 1.2 * share
        if line[0] == line[-1]:
            x, y = _P.place(line[0][0]), _N.place(line[0][1])
            drawn.append(f'<circle class="tip" cx="{x:.1f}" cy="{y:.1f}" r="1" opacity=".5"/>')
            continue
        path = " ".join(f"{_P.place(a):.1f},{_N.place(b):.1f}" for a, b in (*line[::3], line[-1]))
        before = next(place for place in reversed(line) if place != line[-1])
        drawn.append(
            f'<polyline class="flow" points="{path}" style="stroke-width:{width:.2f}"/>'
            + _tip(before, line[-1], 1.6 + 2.2 * share)
        )
    return "".join(drawn)


def _direction(analysis: Analysis, at: Tensor) -> Tensor:
    pull, push = analysis.weights(at[:, 0], at[:, 1])
    step = torch.stack([pull, -push], dim=1).nan_to_num(0.0, 1e9, -1e9)
    length = step.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-9, step / length, 0.0)


def _tip(before: Sequence[float], end: Sequence[float], size: float) -> str:
    """The head of an arrow."""
    x, y = _P.place(end[0]), _N.place(end[1])
    angle = math.atan2(y - _N.place(before[1]), x - _P.place(before[0]))
    corners = " ".join(
        f"{x + size * r * math.cos(angle + t):.1f},{y + size * r * math.sin(angle + t):.1f}"
        for r, t in ((1.0, 0.0), (1.0, 2.4), (1.0, -2.4))
    )
    return f'<polygon class="tip" points="{corners}"/>'


def balance(analysis: Analysis) -> str:
    """The line on which pull and push are equal, and p = n, dashed."""
    lines = "".join(
        f"M{_P.place(a[0]):.1f},{_N.place(a[1]):.1f}L{_P.place(b[0]):.1f},{_N.place(b[1]):.1f}"
        for a, b in analysis.equilibrium(40).tolist()
    )
    even = f'x1="{LEFT}" y1="{TOP + SIDE}" x2="{LEFT + SIDE}" y2="{TOP}"'
    return f'<line class="even" {even}/>' + (
        f'<path class="balance" d="{lines}"/>' if lines else ""
    )


def trajectory(means: Sequence[Sequence[float]]) -> str:
    """The way of the mean (p, n) from epoch to epoch: from a ring to a dot."""
    places = [(_P.place(p), _N.place(n)) for p, n in means]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        for name, (x, y) in (("begin", places[0]), ("end", places[-1]))
    )
    return f'<polyline class="path" points="{path}"/>{dots}'


def frame(content: str, title: str) -> str:
    """A map: its content within axes, without the `<svg>` around."""
    ticks = "".join(
        f'<text class="tick" x="{_P.place(tick):.0f}" y="{TOP + SIDE + 15}" text-anchor="middle">'
        f'{tick:g}</text><text class="tick" x="{LEFT - 5}" y="{_N.place(tick) + 4:.0f}" '
        f'text-anchor="end">{tick:g}</text>'
        for tick in (-1, -0.5, 0, 0.5, 1)
    )
    middle = LEFT + SIDE / 2
    return (
        f"<title>{escape(title)}</title>{content}"
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}"/>{ticks}'
        f'<text class="axis" x="{middle}" y="{TOP + SIDE + 30}" text-anchor="middle">p</text>'
        f'<text class="axis" x="10" y="{TOP + SIDE / 2}" text-anchor="middle">n</text>'
    )


def field(analysis: Analysis, overlay: str = "") -> str:
    """Speed, lines of flow and equilibrium of a loss, with something on top."""
    speed = torch.stack(analysis.weights(*lattice(CELLS))).norm(dim=0).view(CELLS, CELLS)
    return heat(speed, full_colour(speed), 0.5) + balance(analysis) + flow(analysis) + overlay


def figure(content: str, title: str, note: str) -> str:
    """A map as a `<figure>` of a page."""
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><p class="note">{escape(note)}</p>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {note}")}">'
        f"{frame(content, title)}</svg></figure>"
    )
