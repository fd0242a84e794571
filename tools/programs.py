"""Unmodified CUDA programs, how they are compiled and run, and what their output must say: ours in tests/jobs/ and,
where their sources are, CUDA samples. Used by tools/samples and tools/gpu-check."""

import dataclasses
import glob
import json
import os
import re
import shutil
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
JOBS = os.path.join(ROOT, 'tests', 'jobs')


WAIVED = 2  # the status of a CUDA sample that wants a device which is not there


@dataclasses.dataclass
class Program:
    name: str
    folder: str                 # of the sources
    sources: list               # patterns in the folder
    expect: str = ''            # what the output must contain (regular expression); the status must be 0 as well
    arguments: list = dataclasses.field(default_factory=list)
    options: list = dataclasses.field(default_factory=list)      # for nvcc
    fatbins: list = dataclasses.field(default_factory=list)      # (source, file) that the program loads at run time
    files: list = dataclasses.field(default_factory=list)        # to lie beside the program
    gpus: int = 1
    exact: bool = False         # the output is the same to the byte wherever it runs

    def compile(self, into):
        """'' or what went wrong."""
        nvcc = find_nvcc()
        if nvcc is None:
            return 'no nvcc'
        os.makedirs(into, exist_ok=True)
        sources = sorted(path for pattern in self.sources for path in glob.glob(os.path.join(self.folder, pattern)))
        if not sources:
            return f'no sources in {self.folder}'
        commands = [[nvcc, '-O2', *self.options, *sources, '-o', os.path.join(into, self.name)]]
        for source, file in self.fatbins:
            kind = '-ptx' if file.endswith('.ptx') else '-fatbin'
            commands.append([nvcc, kind, os.path.join(self.folder, source), '-o', os.path.join(into, file)])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                return (done.stderr or done.stdout).strip()
        for file in self.files:
            shutil.copy(os.path.join(self.folder, file), into)
        return ''

    def run(self, folder, before=(), env=None, timeout_s=300):
        command = [*before, os.path.join(folder, self.name), *self.arguments]
        began = time.monotonic()
        try:
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, errors='replace',
                                  stdin=subprocess.DEVNULL, timeout=timeout_s)
            status, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as late:
            status, out, err = None, _text(late.stdout), _text(late.stderr)
        except OSError as error:
            status, out, err = 127, '', str(error)
        return Run(self, status, out, err, time.monotonic() - began)


def _text(raw):
    return raw.decode(errors='replace') if isinstance(raw, bytes) else raw or ''


@dataclasses.dataclass
class Run:
    program: Program
    status: int  # None: it took too long
    out: str
    err: str
    seconds: float

    def verdict(self):
        if self.status is None:
            return 'too slow'
        if self.status == WAIVED and re.search('(?i)waiv', self.out):
            return 'waived'
        if self.status != 0:
            return f'status {self.status}'
        if self.program.expect and not re.search(self.program.expect, self.out):
            return f'no "{self.program.expect}"'
        return 'ok'

    def why(self):
        """The line that most likely says what went wrong."""
        lines = [line.strip() for line in (self.err + '\n' + self.out).split('\n') if line.strip()]
        for line in lines:
            if re.search(r'(?i)error|fail|refus|not supported|lacks|tidepool:', line):
                return line[:160]
        return lines[-1][:160] if lines else ''

    def without_numbers(self):
        return re.sub(r'[\d.]+(e[+-]?\d+)?', '#', self.out)


def find_nvcc():
    return shutil.which('nvcc') or next(
        (path for path in (os.path.join(os.environ.get('CUDA_HOME', '/usr/local/cuda'), 'bin', 'nvcc'),)
         if os.access(path, os.X_OK)), None)


def ours():
    def job(name, expect=None, arguments=(), gpus=1, **more):
        expect = f'{name}: ok' if expect is None else expect
        return Program(name, JOBS, [name + more.pop('suffix', '.cu')], expect, list(arguments), gpus=gpus, **more)

    return [
        job('train_digits', 'test accuracy 9[5-9]', ['--steps', '300'], gpus=4, files=['digits.csv'], exact=True),
        job('peer_copy', gpus=2),
        job('bandwidth'),
        job('oom'),
        job('errors', gpus=2),
        job('globals', gpus=2, exact=True),
        job('churn', exact=True),
        job('copies', exact=True),
        job('saxpy_drv', suffix='.cpp', options=['-lcuda'], exact=True),
        job('launch_bound'),
        job('launch_cost'),
        job('copy_cost'),
        job('startup'),
        job('mirror_cost'),
        job('mirrors', exact=True),
    ]


def samples(folder, quick):
    """CUDA samples; `quick`: with small arguments where a sample has some (the software GPU is slow)."""
    common = ['-I', os.path.join(folder, 'Common'), '-std=c++17']

    def sample(path, expect='', arguments=(), slow_arguments=(), sources=('*.cu', '*.cpp'), gpus=1, **more):
        name = os.path.basename(path)
        options = common + more.pop('options', [])
        return Program(name, os.path.join(folder, 'Samples', path), list(sources), expect,
                       list(arguments) + (list(slow_arguments) if quick else []), options, gpus=gpus, **more)

    small_matrix = ['-wA=128', '-hA=128', '-wB=128', '-hB=128']
    intro, concepts = '0_Introduction/', '2_Concepts_and_Techniques/'
    every = [
        sample(intro + 'vectorAdd', 'Test PASSED'),
        sample(intro + 'vectorAddDrv', 'Result = PASS', sources=['vectorAddDrv.cpp'], options=['-lcuda'],
               fatbins=[('vectorAdd_kernel.cu', 'vectorAdd_kernel64.fatbin')]),
        sample(intro + 'matrixMul', 'Result = PASS', slow_arguments=small_matrix),
        sample(intro + 'matrixMulDrv', 'Result = PASS', sources=['matrixMulDrv.cpp'], options=['-lcuda'],
               fatbins=[('matrixMul_kernel.cu', 'matrixMul_kernel64.fatbin')]),
        sample(intro + 'simpleStreams', ''),
        sample(intro + 'simpleMultiCopy', 'Measured timings'),
        sample(intro + 'asyncAPI', 'CPU executed'),
        sample(intro + 'simpleAtomicIntrinsics', 'completed, returned OK'),
        sample(intro + 'simpleVoteIntrinsics', 'OK'),
        sample(concepts + 'reduction', 'Test passed'),
        sample(concepts + 'scan', 'scan completed|Shutting down'),
        sample(concepts + 'histogram', 'Shutting down'),
        sample('6_Performance/transpose', 'Test passed', slow_arguments=['-dimX=128', '-dimY=128']),
        sample(intro + 'simpleP2P', 'Test passed', gpus=2),
        sample('1_Utilities/deviceQuery', 'Result = PASS', gpus=2),
    ]
    return [program for program in every if os.path.isdir(program.folder)]


def table(rows, headings):
    """Lines of a table for people: the first column to the left, numbers to the right."""
    cells = [list(map(str, headings))] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    lines = []
    for row in cells:
        parts = [cell.rjust(width) if re.fullmatch(r'[\d.,]+x?|-', cell) else cell.ljust(width)
                 for cell, width in zip(row, widths)]
        lines.append('  '.join(parts).rstrip())
    lines.insert(1, '  '.join('-' * width for width in widths))
    return '\n'.join(lines)


class Pool:
    """An embedded pool in a folder of its own, from a bundle's or a build's `tide`."""

    def __init__(self, tide, home, gpus, up=(), **environment):
        self.tide, self.home, self.up = tide, home, list(up)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(('TIDE_', 'LD_PRELOAD'))}
        self.env.update(TIDE_HOME=home, **environment)
        os.makedirs(home, exist_ok=True)
        self.gpus = gpus

    def __enter__(self):
        done = subprocess.run([self.tide, 'up', '--gpus', str(self.gpus), *self.up], env=self.env, capture_output=True,
                              text=True, timeout=120, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            self.__exit__()
            raise RuntimeError(f'tide up: {done.stdout}{done.stderr}')
        return self

    def __exit__(self, *_):
        subprocess.run([self.tide, 'down'], env=self.env, capture_output=True, timeout=120)

    def counters(self, job, names):
        """What the library has counted in a running job, over all its virtual GPUs, by name; None: there is no job."""
        done = subprocess.run([self.tide, 'job', job, '--json'], env=self.env, capture_output=True, text=True,
                              timeout=30)
        if done.returncode != 0:
            return None
        vgpus = json.loads(done.stdout).get('vgpus', [])
        return {name: sum(vgpu.get(name, 0) for vgpu in vgpus) for name in names}

    def before(self, program):
        return [self.tide, 'run', '-g', str(program.gpus), '--name', program.name, '--']


def find_tide():
    for path in (os.environ.get('TIDE_BIN', ''), os.path.join(ROOT, 'build', 'bundle', 'bin', 'tide')):
        if path and os.access(path, os.X_OK):
            return path
    raise SystemExit('no build/bundle/bin/tide here: run tools/bundle first')
