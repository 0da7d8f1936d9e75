"""The look of pages: their frame, their tables, and a style for screens and print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--paper:#faf9f6;--card:#fff;--ink:#1c2128;--soft:#59636e;
--rule:#dedbd3;--tint:#f0eee8;--s0:#2457c5;--s1:#b8480f;--s2:#1d7f5c;--s3:#7a3fb0;
--good:#15703f;--also:#8a5a00;--bad:#b3261e;--good-tint:#e2f3e9;--also-tint:#fbf0d9;
--bad-tint:#fbe9e7}
@media(prefers-color-scheme:dark){:root{--paper:#14171c;--card:#1c2027;--ink:#e7e9ec;
--soft:#a3acb8;--rule:#353b45;--tint:#262b33;--s0:#86adff;--s1:#ff9d6b;--s2:#62d1a4;--s3:#cf9cff;
--good:#74d99f;--also:#f0c061;--bad:#ff9a91;--good-tint:#16331f;--also-tint:#372b10;
--bad-tint:#3d1b19}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.5;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:1080px;margin:0 auto;padding:0 20px}
header{padding-top:40px}
.kicker{margin:0;color:var(--soft);font-size:.875rem;letter-spacing:.02em}
h1{margin:.1em 0 .3em;font-size:clamp(1.7rem,5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;
overflow-wrap:anywhere}
h2{margin:2.4em 0 .5em;font-size:1.35rem;letter-spacing:-.01em}
h3{margin:1.8em 0 .6em;font-size:1.05rem}
p{margin:.5em 0;max-width:70ch}
.lead{font-size:1.15rem;max-width:62ch}
.note,.soft{color:var(--soft);font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:14px;
margin:24px 0 0;padding:0;list-style:none}
.tile,figure,.query,.box{background:var(--card);border:1px solid var(--rule);border-radius:10px}
.tile{padding:16px 18px}
.tile b{display:block;font-size:2.1rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.9rem}
.scale{position:relative;height:8px;margin:12px 0 8px;border-radius:4px;background:var(--rule)}
.scale i{position:absolute;top:0;bottom:0;left:0;display:block}
.scale .reached{background:var(--s0);border-radius:4px}
.scale .oracle{top:-4px;bottom:-4px;width:3px;margin-left:-1px;background:var(--ink)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:9px 12px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
thead th{color:var(--soft);font-weight:600;font-size:.875rem}
tbody th{font-weight:500}tbody tr:last-child>*{border-bottom:0}
.results td:nth-child(2){font-weight:700;background:var(--tint)}
.box{padding:4px 6px;margin:14px 0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:16px}
.maps{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:16px;margin-bottom:16px}
svg .map rect{fill:var(--s0)}
figure{margin:0;padding:14px 16px 10px}
figcaption{font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;margin:4px 0 6px;padding:0;list-style:none;
color:var(--soft);font-size:.85rem}
.key{display:inline-block;width:16px;height:3px;margin-right:6px;vertical-align:middle;
background:var(--soft)}
.key.s0{background:var(--s0)}.key.s1{background:var(--s1)}.key.s2{background:var(--s2)}
.key.s3{background:var(--s3)}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px}svg text.axis{font-size:12.5px}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .band{fill:var(--tint)}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round}
svg .line.s0{stroke:var(--s0)}svg .line.s1{stroke:var(--s1)}svg .line.s2{stroke:var(--s2)}
svg .line.s3{stroke:var(--s3)}
svg .dot.s0{fill:var(--s0)}svg .dot.s1{fill:var(--s1)}svg .dot.s2{fill:var(--s2)}
svg .dot.s3{fill:var(--s3)}
.query{padding:14px 16px;margin:12px 0}
.query>p:first-child{margin-top:0}
.asked{font-size:1.05rem;font-weight:600}
.hits{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:12px;margin:10px 0 2px;
padding:0;list-style:none}
.hits li{min-width:0}
.hits img{display:block;width:100%;height:auto;aspect-ratio:1;object-fit:cover;border-radius:6px;
border:3px solid var(--rule)}
.hits .card{display:grid;place-items:center;aspect-ratio:1;padding:6px;border-radius:6px;
border:3px solid var(--rule);font-size:.78rem;color:var(--soft);overflow:hidden;
overflow-wrap:anywhere;text-align:center}
li.match img,li.match .card{border-color:var(--good)}
li.also img,li.also .card{border-color:var(--also)}
li.missed img,li.missed .card{border-style:dashed;border-color:var(--good)}
.mark{display:inline-block;margin-top:5px;padding:1px 8px;border-radius:99px;font-size:.8rem;
font-weight:600;white-space:nowrap}
.match .mark{color:var(--good);background:var(--good-tint)}
.also .mark{color:var(--also);background:var(--also-tint)}
.wrong .mark{color:var(--bad);background:var(--bad-tint)}
.other .mark,.missed .mark{color:var(--soft);background:var(--tint)}
.score{color:var(--soft);font-size:.8rem;font-variant-numeric:tabular-nums;white-space:nowrap}
.sentences{display:grid;grid-template-columns:minmax(110px,168px) 1fr;gap:18px;align-items:start}
.sentences img{width:100%;height:auto;border-radius:6px;border:1px solid var(--rule);display:block}
.sentences .card{padding:14px 8px;border:1px solid var(--rule);border-radius:6px;
text-align:center;color:var(--soft);font-size:.85rem}
.ranked{margin:0;padding:0;list-style:none}
.ranked li{display:grid;grid-template-columns:94px 1fr auto;gap:2px 12px;align-items:baseline;
padding:6px 0;border-bottom:1px solid var(--rule)}
.ranked li:last-child{border-bottom:0}
.ranked .mark{margin:0;justify-self:start}
details{margin:12px 0}summary{cursor:pointer;font-weight:600;padding:4px 0}
pre{overflow-x:auto;margin:8px 0;padding:14px 16px;border-radius:10px;background:var(--tint);
font:13px/1.5 ui-monospace,"SFMono-Regular",Menlo,"DejaVu Sans Mono",monospace}
footer{padding-top:40px;padding-bottom:48px;color:var(--soft);font-size:.875rem}
a{color:var(--s0)}
:focus-visible{outline:3px solid var(--s0);outline-offset:2px}
@media(max-width:620px){header{padding-top:24px}main,header,footer{padding-left:14px;
padding-right:14px}
th,td{padding:8px 5px}.box{padding:2px}.results{font-size:.85rem}
.results thead th{white-space:normal;overflow-wrap:anywhere;font-size:.8rem}
.maps{grid-template-columns:1fr}.hits{gap:7px;grid-template-columns:repeat(3,minmax(0,1fr))}
.sentences{grid-template-columns:1fr}.sentences>:first-child{max-width:150px}
.ranked li{grid-template-columns:94px 1fr}.ranked .text{grid-column:1/-1}
.ranked .score{justify-self:end}}
@media print{body{background:#fff}.tile,figure,.query{break-inside:avoid}}
"""
"""Light and dark, phone and desktop, print."""


def page_html(title: str, body: str, style: str = STYLE) -> str:
    """A page that needs no other file and no network. title: text; body: HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def table_html(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "plain", label: str = ""
) -> str:
    """Texts as a table that scrolls where it is too wide; the first of a row is its heading.

    Args: heads: none for a table without. kind: its class. label: for who cannot see it.
    """
    region = f' tabindex="0" role="region" aria-label="{escape(label)}"' if label else ""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return (
        f'<div class="box scroll"{region}><table class="{kind}">'
        f"{top and f'<thead><tr>{top}</tr></thead>'}<tbody>{body}</tbody></table></div>"
    )


def number_cells(numbers: Iterable[float]) -> list[str]:
    """Cells with one decimal, blank where there is no number (NaN)."""
    return ["" if math.isnan(number) else f"{number:.1f}" for number in numbers]
