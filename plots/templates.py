"""Templates of the traditional analysis at several values of the parameter, and the observed counts.

python plots/templates.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys
from pathlib import Path

from milanalysis.reporting.gallery import draw

if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]), "templates", *map(Path, sys.argv[2:])):
        print(path)
