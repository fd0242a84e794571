#!/usr/bin/env python3
"""What the preload library may be to a process that it is loaded into: preload_check.py LIBRARY EXPORTS_MAP."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

LIBRARY = pathlib.Path(sys.argv[1]).resolve()
MAP = pathlib.Path(sys.argv[2])
FOLDER = LIBRARY.parent
ALLOWED = {'libcuda.so', 'libc.so.6', 'ld-linux-x86-64.so.2', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0'}


def run(*command, **kwargs):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)


def preloaded(*command, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith('TIDE_')}
    return run(*command, env={**env, 'LD_PRELOAD': str(LIBRARY), **more})


def python(code, **more):
    return preloaded(sys.executable, '-c', code, **more)


class File(unittest.TestCase):
    def test_exports_only_the_drivers_names(self):
        out = run('nm', '-D', '--defined-only', str(LIBRARY)).stdout
        exported = {line.split()[-1].split('@')[0] for line in out.splitlines()}
        wanted = set(re.findall(r'^\s+(cu\w+);', MAP.read_text(), re.M))
        self.assertGreater(len(wanted), 600)
        self.assertEqual(exported, wanted)

    def test_needs_nothing_but_libc_and_the_alias(self):
        out = run('readelf', '-d', str(LIBRARY)).stdout
        self.assertLessEqual(set(re.findall(r'NEEDED.*\[(.*)\]', out)), ALLOWED)
        self.assertIn('[libcuda.so.1]', out)
        self.assertIn('RPATH', out)
        self.assertNotIn('RUNPATH', out)
        self.assertNotIn('TEXTREL', out)

    def test_has_no_destructors_and_no_constructors_but_the_compilers(self):
        out = run('readelf', '-d', str(LIBRARY)).stdout
        self.assertEqual(re.search(r'FINI_ARRAYSZ\)\s+(\d+)', out).group(1), '8')
        self.assertLessEqual(int(re.search(r'INIT_ARRAYSZ\)\s+(\d+)', out).group(1)), 16)
        undefined = run('nm', '-D', '--undefined-only', str(LIBRARY)).stdout
        for name in ('__cxa_atexit', '__cxa_thread_atexit', 'atexit'):
            self.assertNotRegex(undefined, rf'\b{name}\b')

    def test_alias_is_only_a_name(self):
        out = run('readelf', '-d', str(FOLDER / 'libcuda.so')).stdout
        self.assertEqual(re.findall(r'NEEDED.*\[(.*)\]', out), ['libcuda.so.1'])
        self.assertIn('soname: [libcuda.so]', out)


class InAProcess(unittest.TestCase):
    def test_programs_that_use_no_gpu_notice_nothing(self):
        for command in (['/bin/true'], ['/bin/bash', '-c', 'echo $((1 + 1)) | cat']):
            plain, ours = run(*command), preloaded(*command)
            for part in ('returncode', 'stdout', 'stderr'):
                self.assertEqual(getattr(ours, part), getattr(plain, part))

    def test_nothing_is_opened_or_started_before_the_first_call(self):
        code = 'import os; print(sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))'
        self.assertEqual(python(code).stdout, run(sys.executable, '-c', code).stdout)

    def test_both_names_lead_here(self):
        code = '''
import ctypes
path = {}
for name in ("libcuda.so.1", "libcuda.so"):
    library = ctypes.CDLL(name)
    path[name] = ctypes.cast(library.cuInit, ctypes.c_void_p).value
assert path["libcuda.so"] == path["libcuda.so.1"], path
maps = open("/proc/self/maps").read()
for line in maps.splitlines():
    low, high = (int(x, 16) for x in line.split()[0].split("-"))
    if low <= path["libcuda.so"] < high:
        print(line.split()[-1])
'''
        result = python(code)
        self.assertEqual(result.stdout.strip(), str(LIBRARY), result.stderr)

    def test_the_folder_of_links_serves_who_looks_for_files(self):
        code = 'import ctypes; print(ctypes.CDLL("libcuda.so.1").cuInit(1))'
        env = {k: v for k, v in os.environ.items() if not k.startswith('TIDE_')}
        result = run(sys.executable, '-c', code, env={**env, 'LD_LIBRARY_PATH': str(FOLDER / 'alias')})
        self.assertEqual(result.stdout.strip(), '1', result.stderr)

    def test_without_a_job_there_is_no_device_and_one_line_says_why(self):
        result = python('import ctypes; c = ctypes.CDLL("libcuda.so.1"); print(c.cuInit(0), c.cuInit(0), c.cuInit(0))')
        self.assertEqual(result.stdout.strip(), '100 100 100')
        self.assertEqual(result.stderr.count('tide run'), 1)
        self.assertEqual(len(result.stderr.splitlines()), 1)

    def test_an_unreachable_pool_is_said_plainly(self):
        result = python('import ctypes; print(ctypes.CDLL("libcuda.so.1").cuInit(0))',
                        TIDE_JOB='j', TIDE_DOOR='/nonexistent/door', TIDE_TOKEN='00' * 32)
        self.assertEqual(result.stdout.strip(), '802')
        self.assertIn('cannot reach the pool', result.stderr)

    def test_what_can_be_asked_before_cuInit(self):
        code = '''
import ctypes
c = ctypes.CDLL("libcuda.so.1")
version, pointer, text, n = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_int()
assert c.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value == 13000
assert c.cuGetProcAddress_v2(b"cuMemAlloc", ctypes.byref(pointer), 13000, ctypes.c_uint64(0), None) == 0
assert pointer.value == ctypes.cast(c.cuMemAlloc_v2, ctypes.c_void_p).value
assert c.cuGetProcAddress_v2(b"cuGraphicsMapResources", ctypes.byref(pointer), 13000, ctypes.c_uint64(0), None) == 0
assert pointer.value is None
assert c.cuGetErrorName(700, ctypes.byref(text)) == 0 and text.value == b"CUDA_ERROR_ILLEGAL_ADDRESS"
assert c.cuDeviceGetCount(ctypes.byref(n)) == 3
assert c.cuGraphicsMapResources(0, None, None) == 801
'''
        result = python(code)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn('cuGraphicsMapResources is not served', result.stderr)

    def test_a_child_of_a_process_without_cuInit_starts_fresh(self):
        code = '''
import ctypes, os
c = ctypes.CDLL("libcuda.so.1")
pid = os.fork()
if pid == 0:
    os._exit(c.cuInit(0))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
'''
        self.assertEqual(python(code).stdout.strip(), '100')


unittest.main(argv=sys.argv[:1])
