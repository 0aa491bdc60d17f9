"""Make the small notebooks beside this file again: ``python tests/notebooks/bad/build.py``.

``good.ipynb`` is a complete tiny notebook without a fault, executed by the command that publishes
the real ones; each other file is its twin with one fault.
"""

import base64
import copy
import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np

from cookbook.notebooks.publish import publish, write

FOLDER = Path(__file__).parent

TITLE = """# Add numbers until the sum is large enough

≈ ? on ? CPU cores · ? GiB · no model · level 1 of 5 · executed ?"""

SETUP = """import json

import matplotlib.pyplot as plt

from cookbook import notebooks

start = notebooks.mark(globals())"""

PARAMETERS = """learning_rate: float = 0.5  # added in each step, 0 or more
max_steps: int = 8  # steps to take"""

CONFIG = """config = start.parameters(valid=["learning_rate", "max_steps"])
print(config)
if not (isinstance(config["learning_rate"], float | int) and config["learning_rate"] >= 0):
    raise ValueError(f"learning_rate is {config['learning_rate']}, allowed: 0 or more")"""

LOOP = """sums = [0.0]
figure, axes = plt.subplots(figsize=(4, 2.4))
with notebooks.Live(alt="Sum by step, 0 to 4.", caption="The sum rises in a line.") as live:
    for _ in range(max_steps):
        sums.append(sums[-1] + learning_rate)
        axes.plot(sums, color="#0072B2")
        axes.set(xlabel="step", ylabel="sum", title=f"The sum reaches {sums[-1]:.1f}")
        live.update(figure)"""

QUESTION = """## Exercise: take the mean ●○○ 1 minute

Fill in `mean`. You are done when the checker prints *Correct*."""

ANSWER = """<details><summary>Solution</summary>

```python
def mean(values):
    return sum(values) / len(values)
```

</details>"""

STUB = """def mean(values):
    return NotImplemented  # your code"""

CHECKER = """answer = mean([1.0, 2.0, 6.0])
if answer is NotImplemented:
    print("not attempted yet")
elif answer == 9.0:
    print("Not yet: did you forget to divide by the number of values?")
else:
    print("Correct" if answer == 3.0 else f"Not yet: {answer} should be 3.0")"""

CLAIMS = """print(json.dumps({"sum": sums[-1]}))
assert sums[-1] > 1.0, "the sum did not rise above 1.0"  """.rstrip()


def good_source() -> Any:
    """Return the good notebook before it is executed."""
    new_code, new_text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    cells = [
        new_text(TITLE),
        new_code(SETUP),
        new_code(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code(CONFIG),
        new_code(LOOP, metadata={"tags": ["live"]}),
        new_text(QUESTION),
        new_code(STUB, metadata={"tags": ["exercise"]}),
        new_code(CHECKER),
        new_text(ANSWER),
        new_code(CLAIMS, metadata={"tags": ["claims"]}),
    ]
    for number, cell in enumerate(cells, start=1):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def noise_png(side: int) -> str:
    """Return a picture that does not compress, in base64."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    png = io.BytesIO()
    plt.imsave(png, pixels, format="png")
    return base64.b64encode(png.getvalue()).decode("ascii")


def twins(good: Any) -> dict[str, Any]:
    """Return the bad twins of the executed good notebook by file name."""
    names = "out_of_order frozen_bar widget_metadata too_large missing_alt changed_cell home_path"
    made = {name: copy.deepcopy(good) for name in names.split()}
    cells = {name: twin.cells for name, twin in made.items()}
    cells["out_of_order"][3].execution_count = 5
    bar = nbformat.v4.new_output("stream", name="stderr", text="  0%|          | 0/8\n")
    cells["frozen_bar"][4].outputs.append(bar)
    made["widget_metadata"].metadata["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}
    }
    cells["too_large"][4].outputs[0].data["image/png"] = noise_png(side=190)
    del cells["missing_alt"][4].outputs[0].metadata["image/png"]
    cells["changed_cell"][4].source = LOOP.replace("rises", "climbs")
    cells["home_path"][3].outputs[0].text += "saved to /home/ana/runs/1\n"
    return made


def main() -> None:
    """Write the good notebook, execute it, and write its twins."""
    path = FOLDER / "good.ipynb"
    write(good_source(), path)
    if faults := publish(path):
        raise SystemExit("\n".join(faults))
    for name, twin in twins(nbformat.read(path, as_version=4)).items():
        write(twin, FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main()
