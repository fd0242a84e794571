"""What the programs of this folder share: one case a process, which says how it ended in its last line."""
import os
import signal
import subprocess
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


def execute(command, seconds, variables=None):
    """(how it ended, what it printed), for the scripts that run cases. Past its time it is asked to end, so that `tide
    run` takes its pool down."""
    process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    for ask in (None, signal.SIGTERM, signal.SIGKILL):
        if ask is not None:
            os.killpg(process.pid, ask)
        try:
            output, _ = process.communicate(timeout=seconds if ask is None else 20)
            return process.returncode if ask is None else 'time limit', output.decode(errors='replace')
        except subprocess.TimeoutExpired:
            pass
    return 'does not end', ''


def library(name):
    """A shared library that came from PyPI, by its file name."""
    for folder, _, files in os.walk(os.environ['FRAMEWORKS_SITE']):
        if name in files:
            return os.path.join(folder, name)
    raise FileNotFoundError(name)
