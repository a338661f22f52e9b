"""The likelihood of every method on the observed events.

python plots/profiles.py RUN_DIRECTORY [FILE_WITHOUT_ENDING]
"""

import sys

import milanalysis as mil

if __name__ == "__main__":
    for path in mil.open_run(sys.argv[1]).draw("profiles", *sys.argv[2:]):
        print(path)
