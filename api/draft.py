#!/usr/bin/env python3
"""Prints draft rows for functions that cuda.h declares and api/*.api lacks. `draft.py --declarations` prints all."""

import argparse
import pathlib
import re
import subprocess
import sys

import rows as api_rows


def declarations(include):
    """symbol -> parameter text, for everything cuda.h and cudaProfiler.h declare (superseded versions too)."""
    source = '#include <cuda.h>\n#include <cudaProfiler.h>\n'
    found = {}
    for extra in (['-D__CUDA_API_VERSION_INTERNAL'], []):  # the plain form last: current declarations win
        text = subprocess.run(
            ['g++', '-E', '-P', '-x', 'c++', '-', '-DCUDA_ENABLE_DEPRECATED', f'-I{include}', *extra],
            input=source,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        text = re.sub(r'\s+', ' ', text)
        for name, params in re.findall(r'CUresult (cu\w+) ?\(([^;{]*?)\) ?;', text):
            found[name] = '' if params.strip() == 'void' else params.strip()
    return found


def current(include):
    """The symbols that today's cuda.h declares (450 functions, two of them in two current versions)."""
    source = '#include <cuda.h>\n#include <cudaProfiler.h>\n'
    text = subprocess.run(
        ['g++', '-E', '-P', '-x', 'c++', '-', '-DCUDA_ENABLE_DEPRECATED', f'-I{include}'],
        input=source,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(re.findall(r'CUresult (cu\w+) ?\(', re.sub(r'\s+', ' ', text)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--include', default='/usr/local/cuda/include')
    parser.add_argument('--declarations', action='store_true')
    args = parser.parse_args()
    declared = declarations(args.include)
    if args.declarations:
        for name, params in sorted(declared.items()):
            print(f'{name}({params})')
        return
    have = {row.name for row in api_rows.read_all(pathlib.Path(__file__).parent)}
    last = max(row.number for row in api_rows.read_all(pathlib.Path(__file__).parent))
    for name in sorted(current(args.include) - have):
        last += 1
        print(f'{last} {name}({declared[name]}) refuse')
    sys.exit(0)


if __name__ == '__main__':
    main()
