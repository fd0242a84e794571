#!/usr/bin/env python3
"""What the NVML library may be to a process that it is loaded into: nvml_check.py LIBRARY NAMES."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

LIBRARY = pathlib.Path(sys.argv[1]).resolve()
NAMES = set(re.findall(r'^NAME\((\w+)\)', pathlib.Path(sys.argv[2]).read_text(), re.M))
FOLDER = LIBRARY.parent


def run(*command, **kwargs):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)


def python(code, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(('TIDE_', 'LD_'))}
    return run(sys.executable, '-c', code, env={**env, 'LD_PRELOAD': str(LIBRARY), **more})


class File(unittest.TestCase):
    def test_exports_the_names_of_the_list_and_no_other(self):
        out = run('nm', '-D', '--defined-only', str(LIBRARY)).stdout
        self.assertGreater(len(NAMES), 390)
        self.assertEqual({line.split()[-1].split('@')[0] for line in out.splitlines()}, NAMES)

    def test_needs_nothing_but_libc_and_the_alias(self):
        out = run('readelf', '-d', str(LIBRARY)).stdout
        allowed = {'libnvidia-ml.so', 'libc.so.6', 'ld-linux-x86-64.so.2', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0'}
        self.assertLessEqual(set(re.findall(r'NEEDED.*\[(.*)\]', out)), allowed)
        self.assertIn('soname: [libnvidia-ml.so.1]', out)
        self.assertNotIn('RUNPATH', out)

    def test_has_no_destructors_and_no_constructors_but_the_compilers(self):
        out = run('readelf', '-d', str(LIBRARY)).stdout
        self.assertEqual(re.search(r'FINI_ARRAYSZ\)\s+(\d+)', out).group(1), '8')
        self.assertEqual(re.search(r'INIT_ARRAYSZ\)\s+(\d+)', out).group(1), '8')
        undefined = run('nm', '-D', '--undefined-only', str(LIBRARY)).stdout
        for name in ('__cxa_atexit', '__cxa_thread_atexit', 'atexit'):
            self.assertNotRegex(undefined, rf'\b{name}\b')


class InAProcess(unittest.TestCase):
    def test_nothing_is_opened_or_started_before_the_first_call(self):
        code = 'import os; print(sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))'
        self.assertEqual(python(code).stdout, run(sys.executable, '-c', code).stdout)

    def test_both_names_lead_here_and_so_do_the_links(self):
        code = '''
import ctypes
print(len({ctypes.cast(ctypes.CDLL(name).nvmlInit_v2, ctypes.c_void_p).value
           for name in ("libnvidia-ml.so.1", "libnvidia-ml.so")}))
'''
        result = python(code)
        self.assertEqual(result.stdout.strip(), '1', result.stderr)
        result = python(code, LD_PRELOAD='', LD_LIBRARY_PATH=str(FOLDER / 'alias'))
        self.assertEqual(result.stdout.strip(), '1', result.stderr)

    def test_without_a_job_there_is_no_driver_and_nothing_is_printed(self):
        result = python('import ctypes; n = ctypes.CDLL("libnvidia-ml.so.1"); print(n.nvmlInit_v2(), n.nvmlInit())')
        self.assertEqual((result.stdout.strip(), result.stderr), ('9 9', ''))

    def test_every_function_answers_before_init(self):
        code = f'''
import ctypes
n = ctypes.CDLL("libnvidia-ml.so.1")
for name in {sorted(NAMES)}:
    if name.startswith("nvmlInit") or name == "nvmlErrorString":
        continue
    result = getattr(n, name)(None, None, None, None, None, None)
    # Versions are told before init, too; not into NULL.
    wanted = 2 if name.startswith(("nvmlSystemGetCudaDriverVersion", "nvmlSystemGetNVMLVersion")) else 1
    assert result == wanted, (name, result)
'''
        result = python(code)
        self.assertEqual(result.returncode, 0, result.stderr)


unittest.main(argv=sys.argv[:1])
