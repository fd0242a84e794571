#!/usr/bin/env python3
"""Compiles small programs with plain nvcc, with static and with shared cudart, and runs them on the software GPU.

A program passes when it ends with status 0 and its last line is "ok", whatever the order in which its warps and blocks
run.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile


# Orders of execution that change no program's result.
ORDERS = ({}, {'SOFTGPU_QUANTUM': '3', 'SOFTGPU_THREADS': '4', 'SOFTGPU_ISA': 'v2'},
          {'SOFTGPU_QUANTUM': '500', 'SOFTGPU_THREADS': '1', 'SOFTGPU_ISA': 'v3'}, {'SOFTGPU_SEED': '20261'})


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def try_one(source, cudart, extra, arguments, folder):
    program = pathlib.Path(folder) / f'{source.stem}-{cudart}'
    compiled = run([arguments.nvcc, '-O1', '-cudart', cudart, *extra, '-o', str(program), str(source)],
                   cwd=source.parent)
    if compiled.returncode != 0:
        return f'does not compile:\n{compiled.stdout}'
    toolkit = pathlib.Path(arguments.nvcc).resolve().parent.parent / 'lib64'
    environment = dict(os.environ, SOFTGPU_DEVICES='2', SOFTGPU_MEMORY='256MiB',
                       LD_LIBRARY_PATH=f'{pathlib.Path(arguments.driver).parent}:{toolkit}')
    environment.pop('CUDA_VISIBLE_DEVICES', None)
    for order in ORDERS if cudart == 'static' else ORDERS[:1]:
        done = run([str(program)], env=dict(environment, **order), timeout=120)
        if done.returncode != 0 or done.stdout.strip().split('\n')[-1] != 'ok':
            return f'{order or ""} status {done.returncode}, printed:\n{done.stdout}'
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--nvcc', required=True)
    parser.add_argument('--driver', required=True, help='the link named libcuda.so.1')
    parser.add_argument('--programs', required=True, help='folder of .cu files')
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted(pathlib.Path(arguments.programs).glob('*.cu')):
            first = source.read_text().split('\n', 1)[0]
            extra = first.removeprefix('// nvcc:').split() if first.startswith('// nvcc:') else []
            for cudart in ('static', 'shared'):
                problem = try_one(source, cudart, extra, arguments, folder)
                print(f'{source.name} ({cudart} cudart): {problem or "ok"}', flush=True)
                failures += problem is not None
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
