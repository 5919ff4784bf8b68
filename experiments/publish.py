"""Put a finished run where others find it: its objective into the zoo, its results and a picture under docs/results.

    python -m experiments.publish runs/quickstart

Run it from the root of the checkout. What an earlier run of the same preset has left there is replaced. The report of
the run stays beside the run: it is made of the run folder, and `metadisco report` makes it again.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.pages import image_of, png, write_json
from metadisco.checkpoints import checkpoint
from metadisco.core.files import write_atomically
from metadisco.evaluation import results
from metadisco.reports import plots, sections
from metadisco.runs import run_folder

RESULTS = Path("docs/results")


def picture(run: Path) -> bytes:
    """Meta-training and meta-test side by side, as a PNG."""
    log = run_folder.read_metrics(run / "metrics.jsonl")
    is_validated = any(row.get("validation/iqm") is not None for row in log)
    name = "validation/iqm" if is_validated else "fitness"
    rows = [row for row in log if row.get(name) is not None]
    steps, values, seconds = (np.array([row[column] for row in rows]) for column in ("step", name, "seconds"))
    beside, line = sections.validated_beside(log)
    training = plots.meta_training(
        steps,
        values,
        seconds,
        y_label="IQM on validation levels" if is_validated else "mean fitness of the population",
        a2c=line,
        agent=beside,
        every_step=not is_validated,
    )
    suite, agents = next(iter(results.load_curves(run / "curves.npz").items()))
    curves = {agent: plots.learning_curve(each) for agent, each in agents.items() if not each.is_exact}
    test = plots.learning(
        curves, lifetime=next(iter(agents.values())).lifetime, upper_anchor=results.upper_anchor(agents)
    )
    panels = [image_of(figure, dpi=120) for figure in (training, test)]
    joined = Image.new("RGB", (sum(each.width for each in panels), max(each.height for each in panels)), "white")
    for i, panel in enumerate(panels):
        joined.paste(panel, (i * panels[0].width, 0))
    print(f"{suite}: " + ", ".join(f"{agent} {curve.middle[-1]:.3f}" for agent, curve in curves.items()))
    return png(joined)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    run = parser.parse_args().run
    discovered = checkpoint.load(run / "objective")  # verified here
    name = discovered.provenance["preset"]
    checkpoint.save(discovered, checkpoint.ZOO / name, overwrite=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{name}.json", results.read_json(run / "evaluation.json"))
    write_atomically(RESULTS / f"{name}.png", picture(run))


if __name__ == "__main__":
    main()
