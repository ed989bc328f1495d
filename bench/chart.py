# SPDX-License-Identifier: GPL-3.0-or-later
"""The README's chart: time of a command through the bastion, plain ssh and ours, by the length of the line."""

from __future__ import annotations

from typing import Any

WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 760, 18, 4, 96, 190, 64
BARS = (
    ("stock bastion, cold", "#9aa4b2", "plain ssh -J, every command"),
    ("ours bastion, cold", "#5b8def", "this kit, first command"),
    ("ours bastion, warm", "#17a673", "this kit, every further command"),
)
FONT = "font-family='system-ui,sans-serif'"


def svg(result: dict[str, Any]) -> str:
    """A picture that reads on light and dark pages alike."""
    medians, rtts = result["median_ms"], result["rtt_ms"]
    longest = max(found for name, _, _ in BARS for found in medians[name].values())
    group = len(BARS) * (BAR + GAP) + 18
    height = TOP + group * len(rtts) + 28
    label = "Milliseconds for one command through the bastion, by round-trip time"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' "
        f"role='img' aria-label='{label}'>",
        f"<rect width='{WIDTH}' height='{height}' rx='8' fill='#ffffff'/>",
        _text(20, 26, "ssh HOST true, through the bastion: milliseconds, median", 15, weight=600),
    ]
    at = 20
    for _, colour, what in BARS:
        parts.append(f"<rect x='{at}' y='38' width='11' height='11' rx='2' fill='{colour}'/>")
        parts.append(_text(at + 16, 48, what, 12, fill="#444b57"))
        at += 40 + 7 * len(what)
    for index, rtt in enumerate(rtts):
        top = TOP + 8 + group * index
        parts.append(_text(20, top + 1.6 * BAR + GAP, f"RTT {rtt} ms", 12, weight=600))
        for row, (name, colour, _) in enumerate(BARS):
            value = medians[name][str(rtt)]
            length = max(2.0, (WIDTH - LEFT - RIGHT) * value / longest)
            y = top + row * (BAR + GAP)
            parts.append(f"<rect x='{LEFT}' y='{y}' width='{length:.1f}' height='{BAR}' rx='3' fill='{colour}'/>")
            ratio = f"  {result['ratio'][str(rtt)]['ratio']:.0f}x faster" if row == len(BARS) - 1 else ""
            parts.append(_text(LEFT + length + 8, y + 13.5, f"{value:,.0f}{ratio}", 12))
    note = f"OpenSSH {result['openssh']}, medians of {result['rounds']}; made by make bench"
    parts.append(_text(20, height - 12, note, 11, fill="#6b7280"))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, words: str, size: int, weight: int = 400, fill: str = "#1f2430") -> str:
    return f"<text x='{x:g}' y='{y:g}' {FONT} font-size='{size}' font-weight='{weight}' fill='{fill}'>{words}</text>"
