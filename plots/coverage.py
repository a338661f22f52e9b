"""Coverage of every method with its error, and the information it extracts.

python plots/coverage.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys

import milanalysis as mil

if __name__ == "__main__":
    for path in mil.open_run(sys.argv[1]).draw("coverage", *sys.argv[2:]):
        print(path)
