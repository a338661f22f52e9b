"""What the files of an analysis have to be before any of their events is read."""

from __future__ import annotations

from collections.abc import Sequence

from milanalysis.errors import EventWeightError, InputFileError, UnreadableEventsError
from milanalysis.events.files.identity import same_file_problems
from milanalysis.events.files.nominal_weights import weight_problem
from milanalysis.events.files.samples import Sample

__all__ = ["admit"]


def admit(samples: Sequence[Sample]) -> None:
    """Refuse samples that contain a file twice, or whose nominal weights contradict their description.

    Args:
        samples: all of an analysis.

    Raises:
        InputFileError: naming all files that are there twice, and whatever is wrong with the weights.
        EventWeightError: if there are only problems with weights.
    """
    files = same_file_problems(samples)
    weights = []
    for sample in samples:
        try:
            problem = weight_problem(sample)
        except UnreadableEventsError:  # a damaged file is refused, or left out, by who reads its events
            continue
        except EventWeightError as error:
            problem = str(error)
        if problem is not None:
            weights.append(problem)
    if files or weights:
        raise (InputFileError if files else EventWeightError)("\n".join([*files, *weights]))
