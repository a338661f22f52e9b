"""Distributions of features at several values of the parameter, with their ratio to the reference.

python plots/kinematics.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys
from pathlib import Path

from milanalysis.reporting.gallery import draw

if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]), "kinematics", *map(Path, sys.argv[2:])):
        print(path)
