"""The table as a picture: how many times as fast, and the goal of each comparison."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

COLOURS = {True: "#009E73", False: "#D55E00"}  # reached, missed


def draw(results: dict[str, Any], file: Path) -> None:
    """Write a bar for each comparison, with its goal as a line."""
    bars = [
        (f"{job['job']}\nagainst {name}", told["ratio"], told["goal"])
        for job in results["jobs"]
        for name, told in job["programs"].items()
        if "ratio" in told
    ]
    if not bars:
        return
    figure, axes = plt.subplots(figsize=(8.4, 0.7 * len(bars) + 1.2), layout="constrained")
    for y, (_, ratio, goal) in enumerate(bars):
        axes.barh(y, ratio, color=COLOURS[ratio >= goal], height=0.6)
        axes.plot([goal, goal], [y - 0.38, y + 0.38], color="black", linewidth=2)
        axes.text(ratio, y, f" {ratio:.1f}", va="center")
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="#666666", linestyle=":", linewidth=1)
    axes.set_xlim(0, 1.12 * max(max(ratio, goal) for _, ratio, goal in bars))
    axes.set_xlabel("times as fast as the alternative (black: the goal)")
    axes.set_title("The embedded engine against what one would run instead", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)
