"""The programs of Rodinia (its CUDA folder): their makefiles are for old toolkits, so each is compiled here; their
input is not in the repository, so it is made here, of the same form and small."""

import dataclasses
import os
import random
import re
import subprocess

import suites

# Names that CUDA 13 no longer has: functions with another name, and fields that these programs print or look at once.
TODAY = ['-DcudaThreadSynchronize=cudaDeviceSynchronize', '-DcudaThreadExit=cudaDeviceReset',
         '-DclockRate=memoryBusWidth', '-DdeviceOverlap=asyncEngineCount', '-DcomputeMode=ECCEnabled']
OPTIONS = ['-gencode', 'arch=compute_80,code=compute_80', *TODAY, '-lcuda']


@dataclasses.dataclass
class Twin:
    """The same program in Rodinia's OpenMP folder: what it writes from the same input is what must come out. (Not for
    lavaMD, whose input is drawn from the clock, and hotspot, whose steps are a thousandth there.)"""
    place: str
    sources: str
    arguments: str
    file: str = ''  # of both; '' for the last line that they print
    options: tuple = ()
    slack: float = 1e-3


FLOW = 'density momentum density_energy'
TWINS = {
    'bfs': Twin('bfs', 'bfs.cpp', '1 graph.txt', 'result.txt'),
    'b+tree': Twin('b+tree', 'main.c kernel/kernel_cpu.c kernel/kernel_cpu_2.c util/timer/timer.c util/num/num.c',
                   'core 1 file numbers.txt command command.txt', 'output.txt'),
    'cfd': Twin('cfd', 'euler3d_cpu.cpp', 'mesh.txt', FLOW, ('-Dblock_length=1',)),
    'cfd_double': Twin('cfd', 'euler3d_cpu_double.cpp', 'mesh.txt', FLOW, ('-Dblock_length=1',)),
    'cfd_pre': Twin('cfd', 'pre_euler3d_cpu.cpp', 'mesh.txt', FLOW, ('-Dblock_length=1',)),
    'cfd_pre_double': Twin('cfd', 'pre_euler3d_cpu_double.cpp', 'mesh.txt', FLOW, ('-Dblock_length=1',)),
    'nw': Twin('nw', 'needle.cpp', '1024 10 1', 'result.txt'),
    'pathfinder': Twin('pathfinder', 'pathfinder.cpp', '20000 50'),
    'srad_v1': Twin('srad/srad_v1', 'main.c', '10 0.5 502 458 1', 'image_out.pgm', (), 1),  # rounded to integers
    'streamcluster': Twin('streamcluster', 'streamcluster_omp.cpp', '10 20 32 1024 1024 100 none output.txt 1',
                          'output.txt'),
}


def like_twin(twin, program):
    """A judge: '' when the program's numbers are the twin's."""
    def judge(folder, out):
        other = os.path.join(folder, 'twin')
        place = program.place(other)
        problem = '' if os.path.exists(os.path.join(other, 'out')) else run_twin(twin, program, other, place)
        for at in (program.place(folder), place):
            problem = problem or ' '.join(f'no {name}' for name in twin.file.split()
                                          if not os.path.exists(os.path.join(at, name)))
        if problem:
            return 'its twin: ' + problem
        if not twin.file:
            return different(last_numbers(out), last_numbers(suites.read(os.path.join(other, 'out'))), twin.slack)
        for file in twin.file.split():
            ours, theirs = (numbers(suites.read(os.path.join(at, file))) for at in (program.place(folder), place))
            problem = different(ours, theirs, twin.slack)
            if problem:
                return f'{file}: {problem}'
        return ''
    return judge


def run_twin(twin, program, other, place):
    os.makedirs(place, exist_ok=True)
    if program.prepare:
        problem = program.prepare(other)
        if problem:
            return problem
    source = os.path.join(program.root, 'openmp', twin.place)
    binary = os.path.join(other, 'program')
    compiler = 'g++' if '.cpp' in twin.sources else 'gcc'
    files = [os.path.join(source, name) for name in twin.sources.split()]
    done = subprocess.run([compiler, '-O2', '-w', '-fopenmp', '-fcommon', *twin.options, *files, '-lm', '-o', binary],
                          capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr[:160]
    done = subprocess.run([binary, *twin.arguments.split()], cwd=place, capture_output=True, text=True, timeout=120)
    with open(os.path.join(other, 'out'), 'w') as file:
        file.write(done.stdout)
    return ''


def numbers(text):
    return [float(word) for word in re.findall(r'[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)', text)]


def last_numbers(text):
    return numbers(next((line for line in reversed(text.split('\n')) if len(numbers(line)) > 20), ''))


def different(ours, theirs, slack):
    if len(ours) != len(theirs) or not ours:
        return f'{len(ours)} numbers, its OpenMP program has {len(theirs)}'
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if abs(a - b) > slack * max(1, abs(b)) or (a != a) != (b != b):
            return f'number {i} is {a:g}, its OpenMP program has {b:g}'
    return ''


def every(root, hecbench, samples):
    def row(name, place, sources, arguments='', options=(), prepare=None, **more):
        folder = os.path.join(root, 'cuda', place)
        twin = TWINS.get(name)
        include = ['-I', folder, '-I', os.path.join(root, 'cuda', 'util'), '-I', os.path.join(samples, 'Common')]
        program = suites.External('rodinia_' + name, folder, sources.split(), '', arguments.split(),
                                  [*OPTIONS, *include, *options], suite='R', root=root, limit_s=60, prepare=prepare,
                                  **more)
        if twin:
            program.judge = like_twin(twin, program)
        return program

    def lent(folder, names, place):
        """HeCBench has some of the small inputs."""
        def prepare(into):
            os.makedirs(os.path.join(into, place), exist_ok=True)
            for name in names:
                source = os.path.join(hecbench, 'src', 'data', folder, name)
                if not os.path.exists(source):
                    return f'no {source}'
                suites.shutil.copy(source, os.path.join(into, place))
            return ''
        return prepare

    return [
        row('backprop', 'backprop', 'backprop.c facetrain.c imagenet.c backprop_cuda.cu', '65536'),
        row('bfs', 'bfs', 'bfs.cu', 'graph.txt', prepare=graph),
        row('b+tree', 'b+tree', 'main.c kernel/kernel_gpu_cuda_wrapper.cu kernel/kernel_gpu_cuda_wrapper_2.cu '
            'util/timer/timer.c util/num/num.c util/cuda/cuda.cu', 'file numbers.txt command command.txt',
            prepare=tree),
        row('cfd', 'cfd', 'euler3d.cu', 'mesh.txt', prepare=mesh),
        row('cfd_double', 'cfd', 'euler3d_double.cu', 'mesh.txt', prepare=mesh),
        row('cfd_pre', 'cfd', 'pre_euler3d.cu', 'mesh.txt', prepare=mesh),
        row('cfd_pre_double', 'cfd', 'pre_euler3d_double.cu', 'mesh.txt', prepare=mesh),
        row('dwt2d', 'dwt2d', 'main.cu dwt.cu components.cu dwt_cuda/*.cu', 'image.bmp -d 64x64 -f -5 -l 3',
            inside='run/here', prepare=image),
        row('gaussian', 'gaussian', 'gaussian.cu', '-s 64'),
        row('heartwall', 'heartwall', 'main.cu AVI/avilib.c AVI/avimod.c', 'test.avi 2',
            missing='a video'),
        row('hotspot', 'hotspot', 'hotspot.cu', '512 2 10 temp.txt power.txt output.out', prepare=plate),
        row('hotspot3D', 'hotspot3D', '3D.cu', '256 8 10 power.txt temp.txt output.out', prepare=block),
        row('huffman', 'huffman', 'main_test_cu.cu stats_logger.cpp vlc_kernel_sm64huff.cu scan.cu pack_kernels.cu '
            'cpuencode.cpp', 'text.in', ['-DTESTING'], prepare=text),
        row('hybridsort', 'hybridsort', 'bucketsort.cu mergesort.cu main.cu', 'r', ['-DVERIFY']),
        row('kmeans', 'kmeans', 'cluster.c getopt.c kmeans.c kmeans_clustering.c kmeans_cuda.cu rmse.c',
            '-o -i features.txt', ['-Xcompiler', '-fopenmp', '-lgomp'], prepare=features),
        row('lavaMD', 'lavaMD', 'main.c kernel/kernel_gpu_cuda_wrapper.cu util/num/num.c util/timer/timer.c '
            'util/device/device.cu', '-boxes1d 6', ['-DOUTPUT']),
        row('leukocyte', 'leukocyte/CUDA', '*.cu *.c', 'testfile.avi 2', missing='a video'),
        row('lud', 'lud/cuda', 'lud.cu lud_kernel.cu ../common/common.c', '-s 256 -v',
            ['-I', os.path.join(root, 'cuda', 'lud', 'common')],
            checked=lambda out: ('wrong', 'dismatch') if 'dismatch' in out else ('ok', '')),
        row('mummergpu', 'mummergpu/src', 'mummergpu.cu', 'reference.fna query.fna'),
        row('myocyte', 'myocyte', 'main.cu', '5 1 0', inside='run/here',
            prepare=lent('myocyte', ['y.txt', 'params.txt'], 'data/myocyte')),
        row('nn', 'nn', 'nn_cuda.cu', 'list.txt -r 5 -lat 30 -lng 90', prepare=storms),
        row('nw', 'nw', 'needle.cu', '1024 10', ['-DTRACEBACK']),
        row('particlefilter_float', 'particlefilter', 'ex_particle_CUDA_float_seq.cu', '-x 64 -y 64 -z 5 -np 500'),
        row('particlefilter_naive', 'particlefilter', 'ex_particle_CUDA_naive_seq.cu', '-x 64 -y 64 -z 5 -np 500'),
        row('pathfinder', 'pathfinder', 'pathfinder.cu', '20000 50 20', ['-DBENCH_PRINT']),
        row('srad_v1', 'srad/srad_v1', 'main.cu', '10 0.5 502 458', inside='run/here/v1',
            prepare=lent('srad', ['image.pgm'], 'data/srad')),
        row('srad_v2', 'srad/srad_v2', 'srad.cu', '256 256 0 127 0 127 0.5 2'),
        row('streamcluster', 'streamcluster', 'streamcluster_cuda_cpu.cpp streamcluster_cuda.cu',
            '10 20 32 1024 1024 100 none output.txt 1'),
    ]


def write(folder, name, parts, separator='\n'):
    with open(os.path.join(folder, name), 'w') as file:
        file.write(separator.join(map(str, parts)) + '\n')
    return ''


def graph(folder, nodes=65536, degree=6):
    """Where each node's edges begin, how many they are; the source; each edge's end and cost."""
    draw = random.Random(1)
    lines = [nodes, *(f'{i * degree} {degree}' for i in range(nodes)), '', 0, '', nodes * degree]
    lines += [f'{draw.randrange(nodes)} {draw.randrange(1, 10)}' for _ in range(nodes * degree)]
    return write(folder, 'graph.txt', lines)


def tree(folder, count=10000):
    draw = random.Random(2)
    numbers = draw.sample(range(count), count)
    write(folder, 'numbers.txt', [count, *numbers])
    return write(folder, 'command.txt', ['j 60 30', '', 'k 100', ''])


def mesh(folder, elements=1536):
    """For each element an area and four neighbours (negative at a border), each with the normal of its face."""
    draw = random.Random(3)
    lines = [elements]
    for i in range(elements):
        cells = [f'{1 + draw.random():.6f}']
        for j in range(4):
            other = i + (1, -1, 32, -32)[j] + 1  # counted from one
            cells.append(str(other if 1 <= other <= elements else -2))
            cells += [f'{0.1 * draw.uniform(-1, 1):.6f}' for _ in range(3)]
        lines.append(' '.join(cells))
    return write(folder, 'mesh.txt', lines)


def image(folder, side=64):
    """A picture as Windows keeps it, 24 bits a pixel."""
    draw = random.Random(4)
    pixels = bytes(draw.randrange(256) for _ in range(3 * side * side))
    head = b'BM' + (54 + len(pixels)).to_bytes(4, 'little') + bytes(4) + (54).to_bytes(4, 'little')
    head += (40).to_bytes(4, 'little') + side.to_bytes(4, 'little') * 2 + (1).to_bytes(2, 'little')
    head += (24).to_bytes(2, 'little') + bytes(4) + len(pixels).to_bytes(4, 'little') + bytes(16)
    os.makedirs(os.path.join(folder, 'data', 'dwt2d'), exist_ok=True)
    with open(os.path.join(folder, 'data', 'dwt2d', 'image.bmp'), 'wb') as file:
        file.write(head + pixels)
    return ''


def heat(folder, count):
    draw = random.Random(5)
    write(folder, 'temp.txt', (f'{draw.uniform(320, 340):.6f}' for _ in range(count)))
    return write(folder, 'power.txt', (f'{draw.uniform(0, 0.01):.6f}' for _ in range(count)))


def plate(folder):
    return heat(folder, 512 * 512)


def block(folder):
    return heat(folder, 256 * 256 * 8)


def text(folder, size=1 << 16):
    """Bytes of which small ones are frequent."""
    draw = random.Random(6)
    with open(os.path.join(folder, 'text.in'), 'wb') as file:
        file.write(bytes(min(255, int(draw.expovariate(0.05))) for _ in range(size)))
    return ''


def features(folder, points=2000, count=16):
    draw = random.Random(7)
    return write(folder, 'features.txt', (f'{i} ' + ' '.join(f'{draw.random():.4f}' for _ in range(count))
                                          for i in range(points)))


def storms(folder, records=2000):
    draw = random.Random(8)
    lines = (f'{draw.randrange(1950, 2005):4d} {draw.randrange(1, 13):2d} {draw.randrange(1, 29):2d} '
             f'{draw.randrange(0, 24, 6):2d} {draw.randrange(1, 29):2d} {"STORM":<9s} {draw.uniform(7, 70):5.1f} '
             f'{draw.uniform(0, 358):5.1f} {draw.randrange(10, 165):4d} {draw.randrange(900):4d}'
             for _ in range(records))
    write(folder, 'storms.db', lines)
    return write(folder, 'list.txt', ['storms.db'])
