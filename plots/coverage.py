"""Coverage of every method with its error, and the information it extracts.

python plots/coverage.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys
from pathlib import Path

from milanalysis.reporting.gallery import draw

if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]), "coverage", *map(Path, sys.argv[2:])):
        print(path)
