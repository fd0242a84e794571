"""Other people's programs: where their sources lie in the user's folder, how each is compiled, run and judged.

The folder holds checkouts by their usual names: cuda-samples, HeCBench, polybenchGpu, gpu-rodinia, llm.c. None of them
is part of this repository. `acceptance()` is the fixed list that must run; `rest()` is everything else that is found.
"""

import dataclasses
import glob
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
                      r'elapsed|duration|latency|fps|tok/s|pid|average|clock)\b|/s\b|[mu]sec|microsec|GFLOP|'
                      r'iterations while|memcopy:|kernel:|streamed:|streams:')


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
    unordered: bool = False    # lines come in the order of threads or blocks, which nothing promises

    def run(self, folder, before=(), env=None, timeout_s=300):
        if not self.enough:
            return super().run(folder, before, env, timeout_s)
        # Lines must come out as they are written, to end the run when enough was seen.
        command = [*before, 'stdbuf', '-oL', os.path.join(folder, self.name), *self.arguments]
        began = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            while child.poll() is None and time.monotonic() - began < timeout_s:
                if re.search(self.enough.encode(), os.pread(out.fileno(), 1 << 20, 0)):
                    break
                time.sleep(0.1)
            status = child.poll()
            if status is None:
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            texts = [os.pread(file.fileno(), 1 << 24, 0).decode(errors='replace') for file in (out, err)]
        return programs.Run(self, status, *texts, time.monotonic() - began)

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
    """A program with a Makefile that writes `main` beside its sources: made in a copy of its folder."""

    def compile(self, into):
        if os.access(os.path.join(into, self.name), os.X_OK):
            return ''
        # Neighbours are named by relative paths, so the copy lies in a folder that looks like theirs.
        stage = os.path.join(os.path.dirname(into), 'tree', os.path.basename(self.root), 'src')
        os.makedirs(stage, exist_ok=True)
        for name in os.listdir(os.path.join(self.root, 'src')):
            link = os.path.join(stage, name)
            if not os.path.lexists(link) and name != os.path.basename(self.folder):
                try:
                    os.symlink(os.path.join(self.root, 'src', name), link)
                except FileExistsError:
                    pass  # another build was faster
        copy = os.path.join(stage, os.path.basename(self.folder))
        if os.path.islink(copy):
            os.unlink(copy)
        if not os.path.isdir(copy):
            shutil.copytree(self.folder, copy)
        environment = dict(os.environ, PATH=os.path.dirname(programs.find_nvcc()) + ':' + os.environ.get('PATH', ''))
        done = subprocess.run(['make', 'ARCH=sm_80'], cwd=copy, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            return (done.stderr or done.stdout).strip()
        os.makedirs(into, exist_ok=True)
        for entry in os.listdir(copy):
            if not entry.endswith('.o'):
                target = os.path.join(into, self.name if entry == 'main' else entry)
                if not os.path.exists(target):
                    os.symlink(os.path.join(copy, entry), target)
        return ''


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
        s(intro + 'simpleP2P', 'Test passed', gpus=2, waivable=True),
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
        s(intro + 'simpleIPC', options=['-lcuda', os.path.join(root, 'Common', 'helper_multiprocess.cpp')], gpus=2),
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
        s(domain + 'p2pBandwidthLatencyTest', 'P2P Connectivity Matrix', gpus=2, limit_s=300),
        s('6_Performance/LargeKernelParameter', 'Test passed|PASSED|passed', limit_s=240),
    ]


def polybench(root, name, limit_s=120):
    folder = os.path.join(root, 'CUDA', name)
    sources = sorted(glob.glob(os.path.join(folder, '*.cu')))
    source = os.path.basename(sources[0]) if sources else '*.cu'
    return External('poly' + name, folder, [source], r'Percent: 0\b', [],
                    ['-O3', ARCHITECTURE, '-DcudaThreadSynchronize=cudaDeviceSynchronize'], suite='P', root=root,
                    limit_s=limit_s)


def hecbench(root, name, arguments='', expect=r'\bPASS', limit_s=120):
    return Made(name, os.path.join(root, 'src', name + '-cuda'), ['*'], expect, arguments.split(), suite='H', root=root,
                limit_s=limit_s)


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
LLM_KERNELS = ['permute', 'gelu_backward', 'adamw', 'encoder_backward']


def gpt2(root):
    import gpt2_inputs

    return External('train_gpt2_fp32', root, ['train_gpt2_fp32.cu'], 'val loss',
                    '-b 4 -t 64 -g 1 -l 1e-4 -s 100000'.split(),
                    ['-O3', '-std=c++17', ARCHITECTURE, os.path.join(HERE, 'blas.cu')], suite='L', root=root,
                    limit_s=240, prepare=lambda folder: gpt2_inputs.prepare(root, folder), judge=gpt2_inputs.judge)


def llm_kernel(root, name):
    # The check comes first, then a measurement of thousands of launches.
    return External('llm_' + name, os.path.join(root, 'dev', 'cuda'), [name + '.cu'], 'All results match', ['1'],
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


# Headers of what a machine without a display, other vendors' libraries and a run-time compiler lacks.
NOT_HERE = re.compile(r'#\s*include\s*[<"][^>"]*(GL/|GLFW|glut|vulkan|d3d|EGL|nvsci|npp|nvjpeg|FreeImage|nvrtc|mpi\.h|'
                      r'nvmedia|rendercheck|helper_gl|nccl|nvshmem)', re.I)
SAMPLE_OPTIONS = {
    'cudaOpenMP': ['-Xcompiler', '-fopenmp', '-lgomp'], 'MonteCarloMultiGPU': ['-lcurand'], 'batchCUBLAS': ['-lcublas'],
    'simpleCUBLAS': ['-lcublas'], 'matrixMulCUBLAS': ['-lcublas'], 'simpleCUFFT': ['-lcufft'],
    'conjugateGradient': ['-lcublas', '-lcusparse'], 'conjugateGradientPrecond': ['-lcublas', '-lcusparse'],
    'conjugateGradientUM': ['-lcublas', '-lcusparse'], 'conjugateGradientCudaGraphs': ['-lcublas', '-lcusparse'],
    'cuSolverDn_LinearSolver': ['-lcusolver', '-lcublas', '-lcusparse'],
    'cuSolverSp_LinearSolver': ['-lcusolver', '-lcublas', '-lcusparse'],
    'MersenneTwisterGP11213': ['-lcurand'], 'randomFog': ['-lcurand'], 'UnifiedMemoryStreams': ['-lcublas'],
    'simpleCUBLAS_LU': ['-lcublas'], 'convolutionFFT2D': ['-lcufft'],
    'MC_EstimatePiInlineP': ['-lcurand'], 'MC_EstimatePiInlineQ': ['-lcurand'], 'MC_EstimatePiP': ['-lcurand'],
    'MC_EstimatePiQ': ['-lcurand'], 'MC_SingleAsianOptionP': ['-lcurand'],
}
SAMPLE_ARGUMENTS = {
    'transpose': ['-dimX=128', '-dimY=128'], 'nbody': ['-benchmark', '-numbodies=256', '-i=1'],
    'FDTD3d': ['--dimx=64', '--dimy=64', '--dimz=64', '--timesteps=2', '--radius=4'],
}


def rest(folder):
    """Everything else with sources in the folder, with arguments shortened by rule."""
    known = {program.name for program in acceptance(folder)}
    found = []
    for path in sorted(glob.glob(os.path.join(folder, 'cuda-samples', 'Samples', '*', '*'))):
        found += rest_sample(os.path.join(folder, 'cuda-samples'), path)
    for path in sorted(glob.glob(os.path.join(folder, 'HeCBench', 'src', '*-cuda'))):
        found += rest_hecbench(os.path.join(folder, 'HeCBench'), path)
    for path in sorted(glob.glob(os.path.join(folder, 'polybenchGpu', 'CUDA', '*', ''))):
        found.append(polybench(os.path.join(folder, 'polybenchGpu'), os.path.basename(path[:-1]), 60))
    return [program for program in found if program.name not in known]


def rest_sample(root, path):
    name = os.path.basename(path)
    sources = [file for pattern in ('*.cu', '*.cpp', '*.cuh', '*.h') for file in glob.glob(os.path.join(path, pattern))]
    if not any(file.endswith('.cu') for file in sources):
        return []
    if any(NOT_HERE.search(open(file, errors='replace').read()) for file in sources):
        return []
    options = SAMPLE_OPTIONS.get(name, [])
    if name.startswith('cdp') or name.startswith('simpleSeparate'):
        options = options + ['-rdc=true', '-lcudadevrt']
    if any('<cuda.h>' in open(file, errors='replace').read() for file in sources) or name.endswith('Drv'):
        options = options + ['-lcuda']
    kernels = []
    if name.endswith('Drv'):
        kernels = [os.path.basename(file) for file in sources if file.endswith('_kernel.cu')]
    hosts = ['*.cpp'] if kernels else ['*.cu', '*.cpp']
    place = os.path.relpath(path, os.path.join(root, 'Samples'))
    return [sample(root, place, '', SAMPLE_ARGUMENTS.get(name, ()), hosts, options, waivable=True, limit_s=60,
                   gpus=2 if 'ulti' in name or 'P2P' in name else 1,
                   fatbins=[(kernel, kernel.replace('.cu', '64.fatbin')) for kernel in kernels])]


def rest_hecbench(root, path):
    makefile = os.path.join(path, 'Makefile')
    if not os.path.isfile(makefile):
        return []
    text = open(makefile, errors='replace').read()
    line = re.search(r'\n\t\s*\$\(LAUNCHER\)\s+\./\$\(program\)([^\n]*)', text)
    if line is None or re.search(r'[$;|<>&"]', line.group(1)):
        return []
    if re.search(r'\b(mpi\w*|l?nvshmem|l?nccl)\b', text, re.I):
        return []
    words = line.group(1).split()
    # The last number is how often to repeat.
    if words and re.fullmatch(r'\d+', words[-1]) and int(words[-1]) > 2:
        words[-1] = '2'
    name = os.path.basename(path)[: -len('-cuda')]
    return [hecbench(root, name, ' '.join(words), '', 60)]
