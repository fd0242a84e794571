#!/usr/bin/env python3
"""Writes the table of docs/softgpu.md: what the library programs ran, with which kernels, PTX or machine code.

Runs every case of every program on the software GPU alone, with the profile 13.0.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

SHOWN = 3  # kernels of a case
LENGTH = 44


def plain(name):
    """A kernel's name without parameters, template arguments and namespaces."""
    name = subprocess.run(['c++filt', name], capture_output=True, text=True, check=True).stdout.strip()
    name = re.sub(r'^void ', '', name)
    name = name.replace('(anonymous namespace)::', '').split('(')[0]
    bare, depth = '', 0
    for letter in name:
        depth += (letter == '<') - (letter == '>')
        if depth == 0 and letter != '>':
            bare += letter
    bare = '::'.join(bare.split('::')[-2:])
    return bare if len(bare) <= LENGTH else bare[:LENGTH - 3] + '...'


def listed(names):
    names = list(dict.fromkeys(plain(name) for name in names))
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(f'`{name}`' for name in names[:SHOWN]) + more


def run_case(program, case, driver, limit):
    with tempfile.NamedTemporaryFile('r') as log:
        environment = dict(os.environ, SOFTGPU_PROFILE='13.0', SOFTGPU_MEMORY='2GiB', TIDE_LOG='debug',
                           TIDE_LOG_FILE=log.name, LD_LIBRARY_PATH=str(pathlib.Path(driver).parent))
        began = time.monotonic()
        try:
            done = subprocess.run([program, case], env=environment, timeout=limit, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return f'more than {limit} s', ''
        text = log.read()
    outcome = 'right' if done.returncode == 0 else 'wrong: ' + done.stdout.split(' returned ')[-1].split('\n')[0]
    lacking = re.findall(r'kernel (\S+) exists only as machine code', text)
    lacking += re.findall(r'only machine code for [^(]*\((\S+)', text)
    ran = listed(re.findall(r'kernel (\S+), grid', text))
    if lacking:
        ran += '; machine code only: ' + listed(lacking)
    return f'{outcome}, {time.monotonic() - began:.1f} s', ran


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--driver', required=True, help='the link named libcuda.so.1')
    parser.add_argument('--limit', type=int, default=60, help='seconds for a case')
    parser.add_argument('programs', nargs='+')
    arguments = parser.parse_args()
    print('| library | case | outcome | kernels that ran, all from PTX |')
    print('| --- | --- | --- | --- |')
    for program in arguments.programs:
        library = pathlib.Path(program).name.removeprefix('library_')
        environment = dict(os.environ, LD_LIBRARY_PATH=str(pathlib.Path(arguments.driver).parent))
        cases = subprocess.run([program, '--list'], env=environment, capture_output=True, text=True).stdout.split()
        for case in cases:
            print(f'| {library} | {case} | ' + ' | '.join(run_case(program, case, arguments.driver, arguments.limit))
                  + ' |', flush=True)


if __name__ == '__main__':
    sys.exit(main())
