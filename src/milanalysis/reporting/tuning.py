"""What a search of settings has found, as a table and as a figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from milanalysis.config import RangeConfig
from milanalysis.learning.training.tuning import Trial, Tuning
from milanalysis.reporting.plotting import style

__all__ = ["tuning_figure", "tuning_table"]

_MARKS = {"complete": "o", "pruned": "x"}


def tuning_table(tuning: Tuning) -> Table:
    """Return the trials of a search, the best first."""
    table = Table(
        title=f"{len(tuning.trials)} trials of {tuning.label} ({tuning.title}), the best first",
        caption=(
            "validation loss: the lowest of all epochs. pruned: given up, worse than the median of finished "
            "trials at the same epoch. The best of many is too good by luck: test events say what it is "
            "worth."
        ),
    )
    table.add_column("trial", justify="right")
    for heading in (*tuning.ranges, "validation loss", "epochs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for trial in sorted(tuning.trials, key=_rank):
        loss = "-" if trial.validation_loss is None else f"{trial.validation_loss:.6g}"
        values = (f"{trial.settings[name]:.3g}" for name in tuning.ranges)
        state = "best" if trial == tuning.best else "" if trial.state == "complete" else trial.state
        table.add_row(str(trial.number), *values, loss, str(trial.n_epochs), state)
    return table


def _rank(trial: Trial) -> tuple[bool, float, int]:
    """Return what trials are ordered by: finished ones first, then their loss."""
    loss = np.inf if trial.validation_loss is None else trial.validation_loss
    return trial.state != "complete", loss, trial.number


def tuning_figure(tuning: Tuning) -> Figure:
    """Draw the validation loss of all trials in their order, and against each of the settings."""
    trials = [trial for trial in tuning.trials if trial.validation_loss is not None]
    names = list(tuning.ranges)
    with style():
        figure, axes = plt.subplots(
            1, len(names) + 1, figsize=(6 * (len(names) + 1), 6), sharey=True, squeeze=False
        )
        for ax, name in zip(axes[0], [None, *names], strict=True):
            for state, mark in _MARKS.items():
                some = [trial for trial in trials if trial.state == state]
                x = [trial.number if name is None else trial.settings[name] for trial in some]
                ax.scatter(x, [trial.validation_loss for trial in some], marker=mark, label=state)
            best = tuning.best
            ax.scatter(
                best.number if name is None else best.settings[name],
                best.validation_loss,
                s=200,
                facecolors="none",
                edgecolors="black",
                label="best",
            )
            if name is not None and RangeConfig.is_logarithmic(name):
                ax.set_xscale("log")
            ax.set_xlabel("trial" if name is None else name.replace("_", " "))
        axes[0, 0].set_ylabel("validation loss")
        axes[0, 0].legend()
        plt.close(figure)
    return figure
