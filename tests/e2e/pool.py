"""An embedded pool of its own for a test: its own TIDE_HOME, and nothing of it left when the test ends."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.get('TIDE_SOURCE_ROOT', os.path.dirname(os.path.dirname(HERE)))
BUILD = os.environ.get('TIDE_BUILD_ROOT', os.path.join(SOURCE, 'build'))
JOBS = os.path.join(BUILD, 'tests', 'jobs')
DIGITS = os.path.join(SOURCE, 'tests', 'jobs', 'digits.csv')
PATIENCE_S = 120  # nothing in these tests takes as long; what does, hangs


def find_tide():
    """The `tide` under test: $TIDE_BIN, else the one in the build folder."""
    if 'TIDE_BIN' in os.environ:
        return os.environ['TIDE_BIN']
    for folder in ('tools/tide', 'tools', 'bundle/bin'):
        path = os.path.join(BUILD, folder, 'tide')
        if os.path.isfile(path):
            return path
    raise unittest.SkipTest('no `tide` in ' + BUILD)


def job_program(name):
    path = os.path.join(JOBS, name)
    if not os.path.isfile(path):
        raise unittest.SkipTest(f'{path} is not built (no nvcc)')
    return path


def train(*options):
    return [job_program('train_digits'), '--data', DIGITS, *map(str, options)]


def processes(home):
    """pid -> command of every process that belongs to the pool with this home."""
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as file:
                mine = f'TIDE_HOME={home}'.encode() in file.read().split(b'\0')
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                command = file.read().replace(b'\0', b' ').decode(errors='replace').strip()
            with open(f'/proc/{pid}/stat') as file:
                zombie = file.read().rsplit(')', 1)[1].split()[0] == 'Z'
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if mine and not zombie and int(pid) != os.getpid():
            found[int(pid)] = command
    return found


def wait_until(condition, what, seconds=20.0):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f'waited {seconds} s for: {what}')
        time.sleep(0.05)


class Result:
    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.both = done.stdout + done.stderr

    def __repr__(self):
        return f'status {self.status}\n--- out\n{self.out[-2000:]}\n--- err\n{self.err[-4000:]}'


class Job:
    """A `tide run` in the background."""

    def __init__(self, pool, arguments, env=None, stdin=subprocess.DEVNULL):
        self.out_path = tempfile.mktemp(dir=pool.home, suffix='.out')
        self.err_path = self.out_path[:-4] + '.err'
        with open(self.out_path, 'w') as out, open(self.err_path, 'w') as err:
            self.process = subprocess.Popen([pool.tide_path, 'run', *map(str, arguments)], env=env or pool.env,
                                            stdout=out, stderr=err, stdin=stdin)

    def out(self):
        with open(self.out_path) as file:
            return file.read()

    def err(self):
        with open(self.err_path) as file:
            return file.read()

    def steps(self):
        return self.out().count('\nstep ')

    def running(self):
        return self.process.poll() is None

    def wait(self, seconds=PATIENCE_S):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'hangs for {seconds} s\n{self.out()[-1000:]}\n{self.err()[-4000:]}') from None


class Pool:
    def __init__(self, **environment):
        self.tide_path = find_tide()
        self.home = tempfile.mkdtemp(prefix='tide-e2e-')
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(('TIDE_', 'LD_'))}
        self.env.update(TIDE_HOME=self.home, **environment)
        self.shared_memory = set(os.listdir('/dev/shm'))
        self.jobs = []

    def tide(self, *arguments, seconds=PATIENCE_S, env=None):
        command = [self.tide_path, *map(str, arguments)]
        try:
            return Result(subprocess.run(command, env=env or self.env, capture_output=True, text=True, timeout=seconds,
                                         stdin=subprocess.DEVNULL))
        except subprocess.TimeoutExpired as hang:
            raise AssertionError(f'hangs for {seconds} s: {command}\n{hang.stdout}\n{hang.stderr}') from None

    def json(self, *arguments):
        result = self.tide(*arguments, '--json')
        if result.status != 0:
            raise AssertionError(f'tide {arguments}: {result}')
        return json.loads(result.out)

    def up(self, gpus=4, servers=1, *more):
        result = self.tide('up', '--gpus', gpus, '--servers', servers, *more)
        if result.status != 0:
            raise AssertionError(f'tide up: {result}\n{self.logs()}')
        return result

    def run(self, *arguments, seconds=PATIENCE_S):
        return self.tide('run', *arguments, seconds=seconds)

    def start(self, *arguments, env=None, stdin=subprocess.DEVNULL):
        self.jobs.append(Job(self, arguments, env, stdin))
        return self.jobs[-1]

    def job(self, name):
        """What the scheduler says of a job, and None where it does not know it."""
        result = self.tide('job', name, '--json')
        return json.loads(result.out) if result.status == 0 else None

    def jobs_by_name(self):
        return {job['name']: job for job in self.json('jobs')}

    def processes(self, of=''):
        return {pid: command for pid, command in processes(self.home).items() if of in command}

    def pids(self, program):
        """Of the daemons or workers of that name."""
        return [pid for pid, command in self.processes().items()
                if os.path.basename(command.split(' ')[0]) == program]

    def logs(self):
        text = ''
        for folder, _, names in os.walk(self.home):
            for name in names:
                if name.endswith('.log'):
                    with open(os.path.join(folder, name), errors='replace') as file:
                        text += f'--- {name}\n{file.read()[-3000:]}\n'
        return text

    def down(self):
        return self.tide('down')

    def left_over(self):
        """What should not be there any more after `tide down`."""
        left = [f'process {pid}: {command}' for pid, command in self.processes().items()]
        left += [f'shared memory {name}' for name in set(os.listdir('/dev/shm')) - self.shared_memory if 'tide' in name]
        for folder, _, names in os.walk(self.home):
            for name in names:
                path = os.path.join(folder, name)
                if not os.path.isfile(path) and not os.path.islink(path) and os.path.exists(path):
                    left.append(f'socket {path}')
        return left

    def close(self):
        try:
            self.tide('down', seconds=60)
        except AssertionError:
            pass
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for job in self.jobs:
            job.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


class PoolTest(unittest.TestCase):
    """A test with a pool of its own; says what its daemons logged when it fails."""

    environment = {}

    def setUp(self):
        self.pool = Pool(**self.environment)
        self.addCleanup(self.pool.close)
        self.addCleanup(lambda: setattr(self, 'kept_logs', self.pool.logs()))

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        done = super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(f'--- logs of {self.id()}\n{getattr(self, "kept_logs", "")}', flush=True)
        return done

    def expect_ok(self, result):
        self.assertEqual(result.status, 0, repr(result))
        return result

    def expect_nothing_left(self):
        self.expect_ok(self.pool.down())
        wait_until(lambda: not self.pool.left_over(), 'nothing left over', 10) if self.pool.left_over() else None
        self.assertEqual(self.pool.left_over(), [])

    def replace_scheduler(self):
        """Kills it, and starts it again where everybody knows it to be."""
        ready = scheduler_ready(self.pool)
        pid = self.pool.pids('tide-scheduler')[0]
        with open(f'/proc/{pid}/cmdline', encoding='utf-8') as file:
            command = file.read().split('\0')[:-1]
        for option, address in (('--listen', ready['pool']), ('--door', ready['door'])):
            command[command.index(option) + 1] = address
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.pool.pids('tide-scheduler'), 'it ends')
        self.assertNotEqual(self.pool.tide('status').status, 0)
        with open(os.path.join(self.pool.home, 'again.log'), 'w', encoding='utf-8') as log:
            again = subprocess.Popen(command, env=self.pool.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

        def end():
            again.terminate()
            again.wait(20)

        self.addCleanup(end)
        wait_until(lambda: self.pool.tide('status').status == 0, 'it answers')

    def undisturbed(self, *options):
        result = self.expect_ok(self.pool.run('-g', 4, '--', *train(*options)))
        self.assertIn('test accuracy', result.out)
        return result.out


def agent_path(pool):
    beside = os.path.join(os.path.dirname(pool.tide_path), 'tide-agent')
    return beside if os.access(beside, os.X_OK) else os.path.join(BUILD, 'server', 'tide-agent')


def scheduler_ready(pool):
    """What the scheduler wrote when it was: its addresses, `pool` and `door`, and its `pid`."""
    with open(os.path.join(pool.home, 'scheduler.ready'), encoding='ascii') as file:
        return dict(line.split('=', 1) for line in file.read().split())


def scheduler_address(pool):
    return scheduler_ready(pool)['pool']


class TwoMachinesTest(PoolTest):
    """With a second agent, `far`, that takes itself to be on another machine, because its boot id is another one."""

    def setUp(self):
        super().setUp()
        self.pool.up(gpus=1)
        boot_id = os.path.join(self.pool.home, 'boot_id')
        with open(boot_id, 'w', encoding='ascii') as file:
            file.write('11111111-2222-3333-4444-555555555555\n')
        script = (f'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec {agent_path(self.pool)} '
                  f'--scheduler {scheduler_address(self.pool)} --name far --dir {self.pool.home}/far '
                  '--softgpu-devices 1')
        self.far = subprocess.Popen(['unshare', '-m', 'sh', '-c', script], env=self.pool.env, text=True,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(self.end_far)
        wait_until(lambda: self.far.poll() is not None or len(self.pool.json('gpus')) == 2, 'two GPUs')
        if self.far.poll() is not None:
            self.skipTest('no second machine can be played here: ' + self.far.stderr.read())

    def end_far(self):
        self.far.terminate()
        self.far.communicate()
