"""What the programs of this folder share: one case a process, which says how it ended in its last line."""
import os
import sys
import traceback

CASES = {}
FAILED = 3  # the status of a case that failed and whose process then ended as usual


def case(function):
    CASES[function.__name__] = function
    return function


def main():
    """Runs the case that is named on the command line."""
    try:
        CASES[sys.argv[1]]()
    except Exception as error:  # whatever a framework raises is the outcome
        traceback.print_exc()
        text = ' '.join(str(error).split())
        print(f'error: {type(error).__name__}: {text[:600]}', flush=True)
        return FAILED
    print('works', flush=True)
    return 0


def library(name):
    """A shared library that came from PyPI, by its file name."""
    for folder, _, files in os.walk(os.environ['FRAMEWORKS_SITE']):
        if name in files:
            return os.path.join(folder, name)
    raise FileNotFoundError(name)
