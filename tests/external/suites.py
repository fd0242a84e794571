"""Other people's programs: where their sources lie in the user's folder, how each is compiled, run and judged.

The folder holds checkouts by their usual names: cuda-samples, HeCBench, polybenchGpu, gpu-rodinia, llm.c. None of them
is part of this repository. `acceptance()` is the fixed list that must run; everything else that is found is in rest.py.
"""

import contextlib
import dataclasses
import glob
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(HERE)), 'tools'))
import programs  # noqa: E402

ARCHITECTURE = '-arch=sm_80'
# Words that mark a line as one whose numbers are measurements.
MEASURED = re.compile(r'(?i)\b(time|sec(ond)?s?|[mun]?s|[gmk]i?b(/s|ps)?|bandwidth|throughput|g?flops?|speed|rate|'
                      r'elapsed|duration|latency|fps|tok/s|pid|average|clocks?|timing|compute|efficiency)\b|/s\b|'
                      r'[mu]sec|microsec|GFLOP|iterations while|memcopy:|kernel:|streamed:|streams:|lshmName')


TOO_MUCH = 'ended by the runner: wants more than'


TOO_LONG = 'ended by the runner: not done after'
PATIENCE = 5  # so many times its limit a program may take by the clock


def processor_s(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return sum(map(int, file.read().rsplit(')', 1)[1].split()[11:13])) / os.sysconf('SC_CLK_TCK')
    except (OSError, IndexError):
        return 0


def resident_gib(pid):
    try:
        with open(f'/proc/{pid}/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / (1 << 30)
    except (OSError, IndexError):
        return 0


@dataclasses.dataclass
class External(programs.Program):
    suite: str = ''
    root: str = ''             # the checkout
    prepare: object = None     # called with the folder before the first run; returns '' or what went wrong
    judge: object = None       # called with the folder and the output; returns '' or what is wrong
    enough: str = ''           # the run is ended when this was printed
    limit_s: float = 120
    profile: str = ''          # SOFTGPU_PROFILE
    waivable: bool = False     # may say that it needs another kind of machine
    checked: object = None     # says of the output: ('ok' | 'wrong' | 'ran', the line that says so)
    inside: str = ''           # it runs in this part of its folder
    missing: str = ''          # what it needs and this machine cannot have
    peers: bool = False        # lets GPUs use each other's memory, which jobs cannot: compared as a job with one GPU
    unordered: bool = False    # lines come in the order of threads or blocks, which nothing promises

    def is_built(self, folder):
        return os.access(os.path.join(folder, self.name), os.X_OK)

    def place(self, folder):
        """Where it runs."""
        return os.path.join(folder, self.inside)

    def run(self, folder, before=(), env=None, timeout_s=300, most_gib=0):
        """Runs it to its end, or until it printed enough, took too long or more memory than it may."""
        # Lines must come out as they are written, to end the run when enough was seen.
        early = ['stdbuf', '-oL'] if self.enough else []
        os.makedirs(self.place(folder), exist_ok=True)
        command = [*before, *early, os.path.join(folder, self.name), *self.arguments]
        began = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                child = subprocess.Popen(command, cwd=self.place(folder), env=env, stdin=subprocess.DEVNULL, stdout=out,
                                         stderr=err)
            except OSError as error:
                return programs.Run(self, 127, '', str(error), 0)
            status, ended = self._watch(child, out, timeout_s, most_gib)
            texts = [os.pread(file.fileno(), 1 << 24, 0).decode(errors='replace') for file in (out, err)]
        if ended:
            texts[1] += f'\n{ended}'
        return programs.Run(self, status, *texts, time.monotonic() - began)

    def _watch(self, child, out, limit_s, most_gib):
        """(status, why it was ended): None and '' when enough was printed or time was over."""
        began, ended = time.monotonic(), ''
        while True:
            try:
                return child.wait(0.1), ''
            except subprocess.TimeoutExpired:
                pass
            # On a machine that others use, too, its own time is what counts.
            spent, passed = processor_s(child.pid), time.monotonic() - began
            if passed > PATIENCE * limit_s or spent > limit_s:
                ended = f'{TOO_LONG} {spent:.0f} s of its own in {passed:.0f} s'
                break
            if self.enough and re.search(self.enough.encode(), os.pread(out.fileno(), 1 << 20, 0)):
                break
            if most_gib and resident_gib(child.pid) > most_gib:
                ended = f'{TOO_MUCH} {most_gib:g} GiB'
                break
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return None, ended

    def compile(self, into):
        binary = os.path.join(into, self.name)
        if os.access(binary, os.X_OK):
            return ''
        problem = super().compile(into)
        if problem:
            shutil.rmtree(into, ignore_errors=True)
            os.makedirs(into, exist_ok=True)
        data = os.path.join(self.folder, 'data')
        if not problem and os.path.isdir(data) and not os.path.exists(os.path.join(into, 'data')):
            shutil.copytree(data, os.path.join(into, 'data'))
        return problem


@dataclasses.dataclass
class Made(External):
    """A program with a Makefile, made and run in a copy of its folder among links to its neighbours."""

    shortened: bool = False  # the arguments are the Makefile's, made smaller by rule
    full_arguments: list = dataclasses.field(default_factory=list)

    def other_arguments(self, slow):
        """Of a program that was too slow: smaller ones; of another: only repeats are fewer, because the rule may have
        made sizes that the program cannot take. None where that changes nothing."""
        words = shorten(self.full_arguments, 1 << 13 if slow else math.inf)
        return words if words != self.arguments else None

    def is_built(self, folder):
        return os.access(os.path.join(self.place(folder), 'main'), os.X_OK)

    def place(self, folder):
        # Neighbours are named by relative paths, so the copy lies in a folder that looks like theirs.
        return os.path.join(os.path.dirname(folder), 'tree', os.path.basename(self.root), 'src',
                            os.path.basename(self.folder))

    def compile(self, into):
        copy = self.place(into)
        if not os.access(os.path.join(into, self.name), os.X_OK):
            problem = self._make(copy)
            if problem:
                return problem
            os.makedirs(into, exist_ok=True)
            target = os.path.join(into, self.name)
            if os.path.lexists(target):
                os.unlink(target)
            os.symlink(os.path.join(copy, made_name(copy)), target)
        if self.shortened:
            self.full_arguments = makefile_arguments(copy)
            self.arguments = shorten(self.full_arguments)
        return ''

    def _make(self, copy):
        copy_among_links(self.folder, copy)
        path = os.path.dirname(programs.find_nvcc()) + ':' + os.environ.get('PATH', '')
        problem = ''
        for architecture in ARCHITECTURES:
            done = subprocess.run(['make', f'ARCH={architecture}'], cwd=copy, capture_output=True, text=True,
                                  errors='replace', env=dict(os.environ, PATH=path), stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                return ''
            problem = problem or (done.stderr or done.stdout).strip()
        return problem


# PTX alone is enough, and saves the assembler's time; what does not compile for the first may need the second.
ARCHITECTURES = ('compute_80', 'sm_80', '80', 'compute_90')


def copy_among_links(folder, copy):
    parent, stage = os.path.dirname(folder), os.path.dirname(copy)
    if os.path.isdir(copy) and not os.path.islink(copy):
        return
    os.makedirs(stage, exist_ok=True)
    for name in os.listdir(parent):
        link = os.path.join(stage, name)
        if not os.path.lexists(link) and name != os.path.basename(folder):
            with contextlib.suppress(FileExistsError):  # another build was faster
                os.symlink(os.path.join(parent, name), link)
    if os.path.islink(copy):
        os.unlink(copy)
    shutil.copytree(folder, copy, symlinks=True)


def made_name(copy):
    """What its Makefile makes: `main`, or what it calls it."""
    text = read(os.path.join(copy, 'Makefile'))
    names = re.findall(r'(?m)^\s*(?:program|EXE|EXECUTABLE|TARGET)\s*[:?]?=\s*(\S+)', text)
    for name in ['main', *names]:
        if os.access(os.path.join(copy, name), os.X_OK) and os.path.isfile(os.path.join(copy, name)):
            return name
    return 'main'


def read(path):
    with open(path, errors='replace') as file:
        return file.read()


def makefile_arguments(copy):
    """What `make run` would give the program the first time that it runs it."""
    done = subprocess.run(['make', '-n', 'run'], cwd=copy, capture_output=True, text=True, errors='replace',
                          stdin=subprocess.DEVNULL)
    name = re.escape(made_name(copy))
    line = re.search(rf'(?m)^(?:.*[\s&;])?\./{name}(?:[ \t]+([^\n#|<>&;]*))?$', done.stdout.replace('\\\n', ' '))
    return (line.group(1) or '').split() if line else []


def shorten(words, most=1 << 20):
    """Repeats only twice, and at most `most` of what the other numbers multiply to. (Rules of thumb: the last number is
    mostly how often to repeat.)"""
    least = 64 if most > 1 << 16 else 16
    numbers = [i for i, word in enumerate(words) if re.fullmatch(r'(--?\w+=)?\d+', word)]
    values = {i: int(words[i].split('=')[-1]) for i in numbers}
    if numbers and values[numbers[-1]] >= 10:
        values[numbers.pop()] = 2
    while math.prod(max(values[i], 1) for i in numbers) > most and max(values[i] for i in numbers) > least:
        largest = max(numbers, key=values.get)
        values[largest] //= 2
    return [re.sub(r'\d+$', str(values[i]), word) if i in values else word for i, word in enumerate(words)]


def sample(root, path, expect='', arguments=(), sources=('*.cu', '*.cpp', '*.c'), options=(), **more):
    """A program of the CUDA samples."""
    folder = os.path.join(root, 'Samples', path)
    flags = ['-std=c++17', ARCHITECTURE, '-I', os.path.join(root, 'Common'), '-I', folder, *options]
    return External(os.path.basename(path), folder, list(sources), expect, list(arguments), flags, suite='S', root=root,
                    **more)


def samples_accepted(root):
    intro, concepts, features = '0_Introduction/', '2_Concepts_and_Techniques/', '3_CUDA_Features/'
    domain = '5_Domain_Specific/'
    small = ['-wA=128', '-hA=128', '-wB=128', '-hB=128']

    def driver(path, source, expect, kernel=None, fatbin=None, **more):
        more.setdefault('sources', [source])
        return sample(root, path, expect, options=['-lcuda'], fatbins=[(kernel, fatbin)] if kernel else [], **more)

    def s(path, expect='', **more):
        return sample(root, path, expect, **more)

    return [
        s(intro + 'vectorAdd', 'Test PASSED'),
        driver(intro + 'vectorAddDrv', 'vectorAddDrv.cpp', 'Result = PASS', 'vectorAdd_kernel.cu',
               'vectorAdd_kernel64.fatbin'),
        s(intro + 'matrixMul', 'Result = PASS', arguments=small),
        s(intro + 'asyncAPI'),
        s(intro + 'simpleStreams', limit_s=240),
        s(intro + 'simpleMultiCopy'),
        s(intro + 'simpleHyperQ'),
        s(intro + 'simpleCallback', 'Success|success'),
        s(intro + 'simpleMultiGPU', gpus=4),
        s(intro + 'simpleP2P', 'Test passed', gpus=2, waivable=True, peers=True),
        s(intro + 'simpleZeroCopy', r'Releasing CPU memory'),
        s(intro + 'systemWideAtomics', 'OK'),
        s(intro + 'simpleAtomicIntrinsics', 'OK'),
        s(intro + 'simpleVoteIntrinsics', 'OK'),
        s(intro + 'simpleCooperativeGroups', r'is 2016 \(expected 2016\)'),
        s(intro + 'simplePrintf', r'\[3, 7\]:\s+Value is:10', unordered=True),
        s(intro + 'simpleAssert', 'simpleAssert completed, returned OK'),
        s(intro + 'simpleOccupancy', 'Test PASSED'),
        s(intro + 'fp16ScalarProduct', 'PASSED'),
        s(intro + 'mergeSort', 'OK'),
        driver(intro + 'vectorAddMMAP', '', 'Result = PASS', 'vectorAdd_kernel.cu', 'vectorAdd_kernel64.fatbin',
               sources=['vectorAddMMAP.cpp', 'multidevicealloc_memmap.cpp'], gpus=2),
        # On one GPU, for two processes: jobs have no peer access, without which it uses only the first of several.
        s(intro + 'simpleIPC', options=['-lcuda', os.path.join(root, 'Common', 'helper_multiprocess.cpp')],
          unordered=True),
        s(intro + 'simpleTexture', 'returned OK'),
        s(intro + 'simplePitchLinearTexture', 'returned OK|PASSED|OK'),
        s(concepts + 'reduction', 'Test passed', limit_s=240),
        s(concepts + 'histogram', 'Test passed', limit_s=240),
        s(concepts + 'scalarProd', 'Test Passed|PASSED|passed'),
        s(concepts + 'shfl_scan', r'CheckSum: 2073600, \(expect'),
        s(concepts + 'threadFenceReduction', 'GPU result'),
        s(concepts + 'streamOrderedAllocation', 'PASSED'),
        s(concepts + 'inlinePTX', 'Test Successful'),
        driver(concepts + 'threadMigration', 'threadMigration.cpp', 'Finished!', 'threadMigration_kernel.cu',
               'threadMigration_kernel64.fatbin', unordered=True),
        s(features + 'simpleCudaGraphs', 'Final reduced sum|reduced sum'),
        s(features + 'newdelete', '3/3 succesfully run'),
        s(features + 'warpAggregatedAtomicsCG', 'Test passed|PASSED|passed'),
        s(domain + 'dxtc', 'Test passed', limit_s=240),
        s(domain + 'fastWalshTransform', 'Test passed'),
        s(domain + 'p2pBandwidthLatencyTest', 'P2P Connectivity Matrix', gpus=2, limit_s=300, peers=True),
        s('6_Performance/LargeKernelParameter', 'Test passed|PASSED|passed', limit_s=240),
    ]


def polybench(root, name, limit_s=120):
    folder = os.path.join(root, 'CUDA', name)
    sources = sorted(glob.glob(os.path.join(folder, '*.cu')))
    source = os.path.basename(sources[0]) if sources else '*.cu'
    return External('poly' + name, folder, [source], r'Percent: 0\b|misses: 0\b', [],
                    ['-O3', ARCHITECTURE, '-DcudaThreadSynchronize=cudaDeviceSynchronize'], suite='P', root=root,
                    limit_s=limit_s)


def hecbench(root, name, arguments='', expect=r'\bPASS', limit_s=120, **more):
    return Made(name, os.path.join(root, 'src', name + '-cuda'), ['*'], expect, arguments.split(), suite='H', root=root,
                limit_s=limit_s, **more)


HECBENCH_ACCEPTED = [
    ('adam', '10000 200 2'), ('heat2d', '4096 4096 2'), ('axpby', '2'), ('atomicCAS', '2'),
    ('minisweep', '--niterations 2'), ('is', '256 256 2'), ('rfs', '100 2'), ('triad', '--passes 2 -v'), ('bwt', '2'),
    ('qrg', '2'), ('iso2dfd', '2048 2048 2'), ('overlay', '640 2'), ('matrix-rotate', '5000 2'), ('chacha20', '2'),
    ('dct8x8', '1024 1024 2'), ('merge', '1562 2'), ('softmax', '1562 784 0 2'), ('page-rank', '-n 2500 -i 2'),
    ('scan3', '1000 2'), ('murmurhash3', '1562 2'),
]
# What prints no PASS: murmurhash3 compares and prints only a failure.
HECBENCH_EXPECT = {'murmurhash3': r'\bPASS|^((?!FAIL)[\s\S])*$'}
POLYBENCH_ACCEPTED = ['GEMM', '2DCONV', 'ATAX', 'BICG', 'GESUMMV', '3MM', 'JACOBI2D', 'SYRK', '3DCONV']
LLM_FIRST = {'layernorm_backward': '2'}  # the number of its first kernel, where that is not 1
LLM_KERNELS = ['permute', 'gelu_backward', 'adamw', 'encoder_backward']


def gpt2(root):
    import gpt2_inputs

    return External('train_gpt2_fp32', root, ['train_gpt2_fp32.cu'], 'val loss',
                    '-b 4 -t 64 -g 1 -l 1e-4 -s 100000'.split(),
                    ['-O3', '-std=c++17', ARCHITECTURE, os.path.join(HERE, 'blas.cu')], suite='L', root=root,
                    limit_s=240, prepare=lambda folder: gpt2_inputs.prepare(root, folder), judge=gpt2_inputs.judge)


def llm_kernel(root, name):
    # The check comes first, then a measurement of thousands of launches.
    return External('llm_' + name, os.path.join(root, 'dev', 'cuda'), [name + '.cu'], 'All results match',
                    [LLM_FIRST.get(name, '1')],
                    ['-O3', '--use_fast_math', ARCHITECTURE, '-lcublas', '-lcublasLt'], suite='L', root=root,
                    enough='All results match', limit_s=90, profile='13.0')


def acceptance(folder):
    """The list of programs that must run, as rows 1 to 71 of the design count them (row 16 and 22 are two each)."""
    def root(name):
        return os.path.join(folder, name)

    found = samples_accepted(root('cuda-samples'))
    found += [polybench(root('polybenchGpu'), name) for name in POLYBENCH_ACCEPTED]
    found += [hecbench(root('HeCBench'), name, arguments, HECBENCH_EXPECT.get(name, r'\bPASS'))
              for name, arguments in HECBENCH_ACCEPTED]
    found.append(gpt2(root('llm.c')))
    found += [llm_kernel(root('llm.c'), name) for name in LLM_KERNELS]
    return found
