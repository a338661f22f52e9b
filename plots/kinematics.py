"""Distributions of features at several values of the parameter, with their ratio to the reference.

python plots/kinematics.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys

import milanalysis as mil

if __name__ == "__main__":
    for path in mil.open_run(sys.argv[1]).draw("kinematics", *sys.argv[2:]):
        print(path)
