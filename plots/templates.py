"""Templates of the traditional analysis at several values of the parameter, and the observed counts.

python plots/templates.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys

import milanalysis as mil

if __name__ == "__main__":
    for path in mil.open_run(sys.argv[1]).draw("templates", *sys.argv[2:]):
        print(path)
