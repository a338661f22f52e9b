"""The estimate of every method over the pseudo-experiments.

python plots/estimates.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys

import milanalysis as mil

if __name__ == "__main__":
    for path in mil.open_run(sys.argv[1]).draw("estimates", *sys.argv[2:]):
        print(path)
