#!/usr/bin/env python3
"""What the tracer may be to a process that it is loaded into: trace_preload_check.py TRACER LIBRARY EXPORTS_MAP."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TRACER, LIBRARY, MAP = (pathlib.Path(path).resolve() for path in sys.argv[1:4])
LIBC = {'libc.so.6', 'ld-linux-x86-64.so.2', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0'}


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def preloaded(*command, first=f'{TRACER}:{LIBRARY}', **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith('TIDE_')}
    return run(*command, env={**env, 'LD_PRELOAD': first, **more})


def python(code, **more):
    return preloaded(sys.executable, '-c', code, **more)


class Tracer(unittest.TestCase):
    def test_it_exports_the_drivers_names_and_needs_only_libc(self):
        out = run('nm', '-D', '--defined-only', str(TRACER)).stdout
        exported = {line.split()[-1].split('@')[0] for line in out.splitlines()}
        self.assertEqual(exported, set(re.findall(r'^\s+(\w+);', MAP.read_text(), re.M)))
        out = run('readelf', '-d', str(TRACER)).stdout
        self.assertLessEqual(set(re.findall(r'NEEDED.*\[(.*)\]', out)), LIBC)
        self.assertIn('soname: [libcuda.so.1]', out)
        self.assertNotIn('TEXTREL', out)

    def test_programs_that_use_no_gpu_notice_nothing_and_write_nothing(self):
        with tempfile.NamedTemporaryFile() as file:
            for command in (['/bin/true'], ['/bin/bash', '-c', 'echo $((1 + 1)) | cat']):
                plain, ours = run(*command), preloaded(*command, TIDE_TRACE=file.name)
                self.assertEqual((ours.returncode, ours.stdout, ours.stderr),
                                 (plain.returncode, plain.stdout, plain.stderr))
            code = 'import os; print(sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))'
            self.assertEqual(python(code, TIDE_TRACE=file.name).stdout, run(sys.executable, '-c', code).stdout)
            self.assertEqual(os.path.getsize(file.name), 0)

    def test_calls_reach_the_library_behind_it(self):
        code = 'import ctypes; print(ctypes.CDLL("libcuda.so.1").cuInit(0))'
        for more in ({}, {'TIDE_TRACE': '/dev/null'}, {'TIDE_TRACE': '/nowhere/file'}):
            done = python(code, **more)
            self.assertEqual(done.stdout, '100\n', more)  # no job: no device
            self.assertEqual('no trace' in done.stderr, bool(more), done.stderr)

    def test_alone_it_finds_the_driver_that_lies_beside(self):
        done = python('import ctypes; print(ctypes.CDLL("libcuda.so.1").cuInit(0))', first=str(TRACER))
        self.assertEqual(done.stdout, '100\n', done.stderr)

    def test_all_alone_it_says_what_is_missing(self):
        with tempfile.TemporaryDirectory() as folder:
            alone = shutil.copy(TRACER, folder)
            done = python('import ctypes; print(ctypes.CDLL("libcuda.so.1").cuInit(0))', first=alone)
        self.assertEqual(done.stdout, '801\n')
        self.assertIn('libtidecuda.so has to follow it in LD_PRELOAD', done.stderr)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
