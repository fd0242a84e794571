"""What else lies in the user's folder beside the fixed list of suites.py: how it is compiled, run and judged."""

import glob
import os
import re

import rodinia
import suites
from suites import External, Made, read

PTX_ONLY = ['-gencode', 'arch=compute_80,code=compute_80']  # saves the assembler's time
LIMIT_S = 60

# What a program prints of its own check. The first that fits counts.
BAD = re.compile(r'\bFAIL|\b[Ff]ailed\b|[Mm]ismatch|[Ii]ncorrect|\b[Ww]rong|not (correct|match|equal|passed)|'
                 r'CUDA [Ee]rror|cudaError|invalid (device|argument|resource)|an illegal|unspecified launch|'
                 r'no kernel image|\bERROR\b(?! TOOK)|not supported')
HARMLESS = re.compile(r'(?i)\b(0|no|without) (failed|failures?|mismatch\w*|errors?)|'
                      r'(mismatch\w*|fail\w*|incorrect|wrong)[\w ()%]*[:=]+ *0(\.0*)?\b|FAIL(ED)? *= *0|errors?: *0\b|'
                      r'no \w+ error')
GOOD = re.compile(r'\bPASS|\b[Pp]ass(ed)?\b|(?i:\bsuccess)|\b[Cc]orrect\b|\bOK\b|'
                  r'[Vv]erified|\b[Mm]atch(es|ed)?\b|(?i:\b0 (errors|mismatch)|(errors?|mismatches): *0\b|no errors)')
DEVIATION = re.compile(r'(?i)\b(?:error|difference|diff|rms?e?|rsme|deviation|norm|checksum error)\b[^\n:=]{0,40}[:=] *'
                       r'([-+]?\d+\.?\d*(?:e[-+]?\d+)?)(?![\d.]* *[a-z%/])')


def check(text):
    """('ok' | 'wrong' | 'ran', the line that says so): 'ran' where the program says nothing about its result."""
    small = []
    for line in text.split('\n'):
        if BAD.search(line) and not HARMLESS.search(line):
            return 'wrong', line.strip()[:160]
        small += [float(number) for number in DEVIATION.findall(line)]
    if GOOD.search(text) or HARMLESS.search(text):
        return 'ok', ''
    if small:
        worst = max(map(abs, small))
        return ('ok', '') if worst < 1e-3 else ('ran', f'prints an error of {worst:g}')
    return 'ran', ''


def rest(folder):
    known = {(program.suite, program.name) for program in suites.acceptance(folder)}
    names = {name for _, name in known}

    def root(name):
        return os.path.join(folder, name)

    found = []
    for path in sorted(glob.glob(os.path.join(root('cuda-samples'), 'Samples', '*', '*', 'CMakeLists.txt'))):
        found += sample(root('cuda-samples'), os.path.dirname(path))
    for path in sorted(glob.glob(os.path.join(root('HeCBench'), 'src', '*-cuda'))):
        found += hecbench(root('HeCBench'), path)
    for path in sorted(glob.glob(os.path.join(root('polybenchGpu'), 'CUDA', '*', ''))):
        found.append(suites.polybench(root('polybenchGpu'), os.path.basename(path[:-1]), LIMIT_S))
    for path in sorted(glob.glob(os.path.join(root('llm.c'), 'dev', 'cuda', '*.cu'))):
        found.append(suites.llm_kernel(root('llm.c'), os.path.basename(path)[:-3]))
    found += rodinia.every(root('gpu-rodinia'), root('HeCBench'), root('cuda-samples'))
    found = [program for program in found if (program.suite, program.name) not in known]
    for program in found:
        if program.name in names:  # two suites have it
            program.name += '_' + program.suite
        names.add(program.name)
        program.checked = program.checked or check
        program.waivable = True
    return found


# Headers of what a machine without a display, other vendors' libraries or several machines lacks.
NOT_HERE = re.compile(r'#\s*include\s*[<"]([^>"]*(?:GL/|GLFW|glut|vulkan|d3d|EGL|nvsci|npp|nvjpeg|FreeImage|mpi\.h|'
                      r'nvmedia|helper_gl|nvshmem)[^>"]*)', re.I)
SAMPLE_ARGUMENTS = {
    'transpose': ['-dimX=128', '-dimY=128'], 'nbody': ['-benchmark', '-numbodies=256', '-i=1'],
    'FDTD3d': ['--dimx=64', '--dimy=64', '--dimz=64', '--timesteps=2', '--radius=4'],
}
LIBRARY = {'cublas', 'cufft', 'curand', 'cusolver', 'cusparse', 'nvrtc', 'nvJitLink', 'cudart', 'nvvm'}


def sample(root, path):
    name, recipe = os.path.basename(path), read(os.path.join(path, 'CMakeLists.txt'))
    target = re.search(r'add_executable\(\s*(\S+)([^)]*)\)', recipe)
    if target is None:
        return []
    sources = [file for file in target.group(2).split() if re.search(r'\.(cu|cpp|c)$', file)]
    place = os.path.relpath(path, os.path.join(root, 'Samples'))
    gpus = 2 if re.search('ulti|P2P|MGPU', name) else 1
    program = suites.sample(root, place, '', SAMPLE_ARGUMENTS.get(name, ()), sources,
                            sample_options(name, path, recipe), limit_s=LIMIT_S, gpus=gpus)
    program.options = [word for word in program.options if word != suites.ARCHITECTURE] + PTX_ONLY
    program.fatbins = kernels(path, recipe)
    program.unordered = 'helper_multiprocess' in recipe  # lines of several processes
    if BY_NVIDIA.search(' '.join(program.options)):
        program.profile = NEWER
    program.files = [os.path.basename(file) for file in glob.glob(os.path.join(path, '*')) if os.path.isfile(file)
                     and not re.search(r'\.(cpp|c|h|hpp|md|txt|bash)$' if name.endswith('_nvrtc') else
                                       r'\.(cu|cuh|cpp|c|h|hpp|md|txt|bash)$', file)]
    texts = ''.join(read(file) for file in glob.glob(os.path.join(path, '*.[ch]*')))
    missing = NOT_HERE.search(texts)
    if missing:
        program.missing = os.path.basename(missing.group(1))
    return [program]


def sample_options(name, path, recipe):
    options = ['-I', os.path.join(path, 'inc')] if os.path.isdir(os.path.join(path, 'inc')) else []
    options += ['-l' + word for word in sorted(set(re.findall(r'CUDA::(\w+)', recipe)) & LIBRARY - {'cudart'})]
    if '-lcusolver' in options:
        options += ['-lcusparse', '-lcublas']
    if 'CUDA::cuda_driver' in recipe or any('<cuda.h>' in read(file) for file in glob.glob(path + '/*.c*')):
        options.append('-lcuda')
    if 'OpenMP' in recipe or name == 'UnifiedMemoryStreams':
        options += ['-Xcompiler', '-fopenmp', '-lgomp']
    if name.startswith('cdp') or name == 'simpleSeparateCompilation':
        options += ['-rdc=true', '-lcudadevrt']
    if '--extended-lambda' in recipe:
        options.append('--extended-lambda')
    return options


def kernels(path, recipe):
    """(source, file) of what the sample loads at run time."""
    names = re.findall(r'set\(CUDA_(?:FATBIN|PTX)_FILE "[^"]*/([^"/]+)"\)', recipe)
    sources = re.findall(r'set\(CUDA_KERNEL_SOURCE "[^"]*/([^"/]+)"\)', recipe)
    return list(zip(sources, names))


# NVIDIA's libraries bring PTX only for devices newer than themselves (docs/softgpu.md).
BY_NVIDIA = re.compile(r'-l(cublas|cudnn|cufft|cusparse|cusolver|curand)')
NEWER = '13.0'

# Arguments where neither the Makefile's nor these made smaller by rule do.
HECBENCH_ARGUMENTS = {
    'adv': '7 15 64 2', 'aes': '2 1 ../urng-sycl/URNG_Input.bmp', 'atomicIntrinsics': '12 2', 'axhelm': '1 64 2',
    'background-subtract': '512 256 0 6', 'backprop': '1024', 'bezier-surface': '-n 128', 'bh': '1000 2',
    'bitonic-sort': '12 2', 'ccsd-trpdrv': '8 16 2', 'chi2': '64 2000 32 32 64 2', 'd3q19-bgk': '2',
    'dense-embedding': '100000 64 2', 'eikonal': '-s 32', 'epistasis': '146 1024 2', 'floydwarshall': '64 2 16',
    'gamma-correction': '256 256 256 2', 'gaussian': '-q -t -s 64', 'ising': '-x 256 -y 256 -w 2 -n 4',
    'laplace3d': '32 32 32 2 1', 'lavaMD': '-boxes1d 3', 'lif': '1000 32 20', 'lud': '-s 256',
    'lulesh': '-i 2 -s 12 -r 11 -b 1 -c 1', 'miniFE': '-nx 16 -ny 16 -nz 16',
    'minimod': '--warm-up --niters 1 --grid 64 --nsteps 4', 'nbody': '512 2', 'nqueen': '8 2 2',
    'particlefilter': '-x 64 -y 64 -z 5 -np 500', 'pcc': '512 64', 'quicksort': '2 512 512',
    'radixsort2': '-float -keysonly -n=65536', 'rsbench': '-s small -m event -l 2000',
    'rsc': '-f input/vectors.csv -g 512', 's3d': '-q -n 1 -s 1', 'sddmm-batch': '2 64 64 64 64 2 1',
    'spgeam': '200 200 2000 2 1', 'spgemm': '64 64 64 64 2 1', 'spmm': '64 64 64 64 64 2 1', 'spsm': '16 4 256 2 1',
    'streamcluster': '10 20 32 1024 1024 100 none output.txt 1', 'su3': '-i 2 -l 8 -t 128 -v 3 -w 1',
    'tridiagonal': '-num_systems=512', 'tsp': 'd493.tsp 1 2', 'wmma': '0 16 16 64 2 1',
    'xsbench': '-s small -m event -l 2000 -r 1',
}
HECBENCH_WITHOUT_DATA = 'aes b+tree bm3d bmf cfd cm easyWave gd tonemapping'.split()  # and say so in their own ways
HECBENCH_NOT_HERE = re.compile(r'\b(mpi(?:cc|cxx|c\+\+|exec|run)|lnvshmem\w*|lnccl|PYTHON_CMD|lgsl\w*|lnpp\w*|'
                               r'lboost\w*)\b')


def hecbench(root, path):
    name, makefile = os.path.basename(path)[: -len('-cuda')], os.path.join(path, 'Makefile')
    program = suites.hecbench(root, name, '', '', LIMIT_S, shortened=True)
    if name in HECBENCH_ARGUMENTS:
        program.arguments, program.shortened = HECBENCH_ARGUMENTS[name].split(), False
    if not os.path.isfile(makefile):
        program.missing = 'a Makefile'
        return [program]
    text = read(makefile)
    if BY_NVIDIA.search(text):
        program.profile = NEWER
    if name in HECBENCH_WITHOUT_DATA:
        program.missing = 'data that is not in the repository'
    missing = HECBENCH_NOT_HERE.search(text)
    if missing:
        program.missing = missing.group(1)
    return [program]


# Why a program does not pass, where what it prints does not say it.
REASONS = {
    r'.*_nvrtc|ptxgen|simple|uvmlite|device-side-launch': 'makes machine code at run time, or wants libNVVM',
    r'rodinia_(hybridsort|kmeans|mummergpu)': 'texture references, which CUDA 13 no longer has',
    r'rodinia_srad_v2': 'reads one row before its buffer',
    r'groupnorm': 'lacks a barrier between channels (SOFTGPU_CHECK_RACE=1 names the lines)',
    r'atomicSystemWide': 'as a job: CPU and kernel change one word at once',
    r'polyDOITGEN': 'calls a function of another header',
    r'mallocFree': 'the shortened argument leaves it no size, and it does not look',
    r'logic-rewrite': 'its keyboard thread outlives main(), now and then beyond the memory that it uses',
    r'lzss|mcmd|voxelization': 'an input that is not in the repository',
}


def reason(name):
    return next((why for pattern, why in REASONS.items() if re.fullmatch(pattern, name)), '')
