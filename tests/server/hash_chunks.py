#!/usr/bin/env python3
"""server/hash_chunks.ptx is what nvcc makes of server/hash_chunks.cu, and the toolkit's assembler takes it.

  tests/server/hash_chunks.py NVCC [--write]

--write makes it anew, for the oldest GPUs that nvcc still knows. Target and version are lowered to the first that have
these instructions, so that older cards and drivers take it, too; the assembler finds out whether they have them.
Another release of nvcc writes other text: then only the assembler is asked, and tests/server/chunk_hash_test.cc runs
it as ever.
"""

import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = os.path.join(ROOT, 'server', 'hash_chunks.cu')
KEPT = os.path.join(ROOT, 'server', 'hash_chunks.ptx')
COMPILED_FOR = 75
NAMED = {'version': '6.0', 'target': 'sm_70'}  # of CUDA 9: shfl.sync
RELEASE = re.compile(r'^// Cuda compilation tools, (.*)$', re.M)


def compiled(nvcc):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'hash_chunks.ptx')
        options = ['-std=c++20', '-O3', f'-arch=compute_{COMPILED_FOR}', '-ptx', '-I', ROOT]
        subprocess.run([nvcc, *options, '-o', path, SOURCE], check=True)
        with open(path, encoding='ascii') as file:
            text = file.read()
    for word, value in NAMED.items():
        text, lowered = re.subn(rf'^\.{word} \S+$', f'.{word} {value}', text, flags=re.M)
        assert lowered == 1, f'the text has one .{word}'
    return text


def assemble(nvcc, architecture):
    """For one kind of GPU, as its driver would. How much of it a thread takes is in the output."""
    ptxas = os.path.join(os.path.dirname(os.path.realpath(nvcc)), 'ptxas')
    done = subprocess.run([ptxas, '-v', f'-arch=sm_{architecture}', '-o', os.devnull, KEPT],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f'hash_chunks: sm_{architecture}: {done.stderr}')
    used = re.search(r'Used (\d+) registers', done.stderr)
    spilled = re.search(r'(\d+) bytes spill stores', done.stderr)
    print(f'hash_chunks: sm_{architecture}: {used.group(1)} registers, {spilled.group(1)} bytes spilled')
    if int(spilled.group(1)) != 0:
        raise SystemExit('hash_chunks: registers are spilled into memory')


def main(arguments):
    nvcc = arguments[0]
    text = compiled(nvcc)
    if '--write' in arguments:
        with open(KEPT, 'w', encoding='ascii') as file:
            file.write(text)
    with open(KEPT, encoding='ascii') as file:
        kept = file.read()
    if RELEASE.findall(text) != RELEASE.findall(kept):
        print(f'hash_chunks: made by {RELEASE.findall(kept)}, not by this {RELEASE.findall(text)}: not compared')
    elif text != kept:
        raise SystemExit('hash_chunks: server/hash_chunks.ptx is not what nvcc makes of the source; see --write')
    for architecture in (75, 80, 90, 100, 120):
        assemble(nvcc, architecture)
    print('hash_chunks: ok')


if __name__ == '__main__':
    main(sys.argv[1:])
