"""The estimate of every method over the pseudo-experiments.

python plots/estimates.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys
from pathlib import Path

from milanalysis.reporting.gallery import draw

if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]), "estimates", *map(Path, sys.argv[2:])):
        print(path)
