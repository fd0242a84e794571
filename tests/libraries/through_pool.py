#!/usr/bin/env python3
"""Runs the programs of this folder through Tidepool: each with a virtual GPU of a pool of its own."""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--tide', required=True, help='the command line tool')
    parser.add_argument('programs', nargs='+')
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as home:
        environment = dict(os.environ, SOFTGPU_PROFILE='13.0', TIDE_HOME=home)
        for name in ('TIDE_POOL', 'LD_LIBRARY_PATH'):  # the programs know where the toolkit is
            environment.pop(name, None)
        for program in arguments.programs:
            command = [arguments.tide, 'run', '--local', '-g', '1', '--', program]
            done = subprocess.run(command, env=environment, timeout=300, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            passed = done.returncode == 0 and done.stdout.strip().split('\n')[-1] == 'ok'
            print(f'{pathlib.Path(program).name}: {"ok" if passed else "FAILED"}')
            if not passed:
                print(f'status {done.returncode}, printed:\n{done.stdout}')
            failures += not passed
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
