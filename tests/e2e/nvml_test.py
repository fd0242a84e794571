"""What monitoring sees of a job: NVML by itself, from C and from Python."""

import os
import re
import subprocess
import unittest

from pool import SOURCE, PoolTest, job_program

CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME', os.path.expanduser('~/.cache')), 'tidepool', 'nvml')
REQUIREMENTS = ('nvidia-ml-py==13.615.71', 'nvidia-nvml-dev==13.0.87')
BYTES = 96 << 20

LOOK = '''
import os, pynvml as n
n.nvmlInit()
assert n.nvmlSystemGetCudaDriverVersion_v2() >= 12000 and int(n.nvmlSystemGetDriverVersion().split(".")[0]) >= 520
for i in range(n.nvmlDeviceGetCount()):
    h = n.nvmlDeviceGetHandleByIndex(i)
    memory, second = n.nvmlDeviceGetMemoryInfo(h), n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
    assert (memory.total, memory.used, memory.free) == (second.total, second.used, second.free)
    assert n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(h))) == i
    assert n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByPciBusId(n.nvmlDeviceGetPciInfo(h).busId)) == i
    assert n.nvmlDeviceGetComputeRunningProcesses(h) == n.nvmlDeviceGetGraphicsRunningProcesses(h) == []
    major, minor = n.nvmlDeviceGetCudaComputeCapability(h)
    for function in (n.nvmlDeviceGetPowerUsage, n.nvmlDeviceGetFanSpeed, n.nvmlDeviceGetSerial):
        try:
            function(h)
            raise AssertionError(function)
        except n.NVMLError_NotSupported:
            pass
    busy = n.nvmlDeviceGetUtilizationRates(h).gpu
    print(i, n.nvmlDeviceGetUUID(h), memory.total >> 20, memory.used, busy, major * 10 + minor)
n.nvmlShutdown()
try:
    n.nvmlDeviceGetCount()
    raise AssertionError
except n.NVMLError_Uninitialized:
    pass
'''


def python_with_nvml():
    """An interpreter with NVIDIA's Python bindings and header, made once; a skip where PyPI is out of reach."""
    python = os.path.join(CACHE, 'bin', 'python')
    ready = os.path.join(CACHE, 'ready-' + '-'.join(REQUIREMENTS))
    if not os.path.exists(ready):
        try:
            subprocess.run(['python3', '-m', 'venv', CACHE], check=True, capture_output=True, timeout=120)
            subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--timeout', '10',
                            '--retries', '1', *REQUIREMENTS], check=True, capture_output=True, timeout=180)
        except (OSError, subprocess.SubprocessError) as error:
            raise unittest.SkipTest(f'cannot install {REQUIREMENTS}: {error}') from None
        with open(ready, 'w', encoding='ascii'):
            pass
    return python


class Nvml(PoolTest):
    def test_a_monitor_sees_another_process_work(self):
        self.pool.up(gpus=2)
        result = self.expect_ok(self.pool.run('-g', 2, '--', job_program('nvml_view'), BYTES))
        self.assertIn('vGPUs: 2\n', result.out)
        self.assertEqual(result.out.count(': ok\n'), 11, result.out)
        self.expect_nothing_left()

    def test_python_sees_all_vgpus_with_their_quota_and_occupies_none(self):
        python = python_with_nvml()
        self.pool.up(gpus=2)
        result = self.expect_ok(self.pool.run('-g', 3, '--min', 1, '--gpu-memory', '512MiB', '--', 'env',
                                              'CUDA_VISIBLE_DEVICES=1', python, '-c', LOOK))
        lines = [line.split() for line in result.out.splitlines()]
        self.assertEqual([line[0] for line in lines], ['0', '1', '2'])
        self.assertEqual(len({line[1] for line in lines}), 3, 'UUIDs are distinct, also of two vGPUs on one GPU')
        for line in lines:
            self.assertEqual(line[2:5], ['512', '0', '0'])
        self.assertEqual(result.err, '')

    def test_both_libraries_are_preloaded(self):
        self.pool.up(gpus=1)
        value = self.expect_ok(self.pool.run('--', 'sh', '-c', 'echo $LD_PRELOAD')).out
        self.assertRegex(value, r'/libtidecuda\.so:\S*/libtidenvml\.so')


class Header(unittest.TestCase):
    """Our declarations against NVIDIA's, where they can be had."""

    def setUp(self):
        python = python_with_nvml()
        code = 'import nvidia, os; print([os.path.join(p, "cu13/include") for p in nvidia.__path__][0])'
        self.include = subprocess.run([python, '-c', code], check=True, capture_output=True, text=True).stdout.strip()

    def test_the_same_layout(self):
        source = os.path.join(SOURCE, 'tests', 'interpose', 'nvml_header.cc')
        compiler = os.environ.get('CXX', 'g++').split()[-1]
        done = subprocess.run([compiler, '-std=c++20', '-fsyntax-only', '-I', SOURCE, '-I', self.include, source],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_same_functions(self):
        with open(os.path.join(self.include, 'nvml.h'), encoding='utf-8') as file:
            theirs = set(re.findall(r'DECLDIR\s+(nvml\w+)\s*\(', file.read())) - {'nvmlErrorString'}
        with open(os.path.join(SOURCE, 'interpose', 'nvml', 'names.inc'), encoding='ascii') as file:
            ours = set(re.findall(r'^NAME\((\w+)\)', file.read(), re.M)) - {'nvmlErrorString'}
        self.assertEqual(ours, theirs)


if __name__ == '__main__':
    unittest.main(verbosity=2)
