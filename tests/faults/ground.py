"""Two machines to break things between: network namespaces on a switch of their own, a scheduler and an agent with
software GPUs in one, jobs in the other, which the agent takes to be on another machine."""

import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get('TIDE_BUILD_ROOT', os.path.join(ROOT, 'build'))
SERVER, CLIENT = '10.98.2.1', '10.98.2.2'
PORT = 7411
PATIENCE_S = 60
ROUND = re.compile(r'^round (\d+) (\d+)$')


class Failed(Exception):
    """What should have been true and was not."""


def expect(condition, what):
    if not condition:
        raise Failed(what)


def until(condition, what, seconds=PATIENCE_S):
    """The seconds that it took."""
    begin = time.monotonic()
    while not condition():
        expect(time.monotonic() - begin < seconds, f'not within {seconds} s: {what}')
        time.sleep(0.005)
    return time.monotonic() - begin


def why_no_namespaces():
    """Why no machines can be made here, or nothing."""
    if os.geteuid() != 0:
        return 'needs root, for network namespaces'
    missing = [name for name in ('ip', 'bridge', 'ss', 'unshare') if shutil.which(name) is None]
    return f'needs {", ".join(missing)} (apt-get install iproute2 util-linux)' if missing else None


def why_not():
    """Why there is no such ground here, or nothing."""
    if reason := why_no_namespaces():
        return reason
    if not os.path.isfile(os.path.join(BUILD, 'tests/jobs/steady')):
        return f'{BUILD}/tests/jobs/steady is not built (no nvcc)'
    return None


class Job:
    """`tide run` of a program, and what it has said."""

    def __init__(self, ground, program):
        self.folder = tempfile.mkdtemp(dir=ground.home)
        self.known, self.seen = [], 0  # rounds, and how much of the output they are
        words = [ground.program('tools/tide/tide'), '--pool', f'{SERVER}:{PORT}', 'run', '-g', '1', '--',
                 ground.program(f'tests/jobs/{program[0]}'), *program[1:]]
        self.out_path, self.err_path = (os.path.join(self.folder, name) for name in ('out', 'err'))
        with open(self.out_path, 'w') as out, open(self.err_path, 'w') as err:
            self.process = subprocess.Popen(ground.inside(ground.client, *words), stdout=out, stderr=err,
                                            env=ground.environment, stdin=subprocess.DEVNULL)

    def read(self, path):
        with open(path, errors='replace') as file:
            return file.read()

    def err(self):
        return self.read(self.err_path)

    def rounds(self):
        """When each round was over, in ns of the monotonic clock."""
        with open(self.out_path, 'rb') as file:
            file.seek(self.seen)
            whole, newline, _ = file.read().rpartition(b'\n')
        self.seen += len(whole + newline)
        self.known += [int(m[2]) for m in map(ROUND.match, whole.decode(errors='replace').splitlines()) if m]
        return self.known

    def digest(self):
        found = re.search(r'^digest (\w+)$', self.read(self.out_path), re.M)
        return found[1] if found else None

    def over(self):
        return self.process.poll() is not None

    def wait_for_rounds(self, more):
        goal = len(self.rounds()) + more
        until(lambda: len(self.rounds()) >= goal or self.over(), f'{more} rounds\n{self.err()}')
        expect(not self.over(), f'the job ended with {self.process.poll()}: {self.err()}')

    def reconnects(self):
        return self.err().count('is there again')

    def program_pid(self):
        """Of the program itself, below `tide run`."""
        found = subprocess.run(['pgrep', '-P', str(self.process.pid)], capture_output=True, text=True).stdout.split()
        expect(found, 'the program runs')
        return int(found[0])

    def back_after(self, moment):
        """Seconds from that moment to the end of the first round that began after it, or was under way."""
        before = len(self.rounds())
        until(lambda: len(self.rounds()) > before or self.over(), f'another round\n{self.err()}')
        expect(not self.over() or self.process.returncode == 0,
               f'the job ended with {self.process.poll()}: {self.err()}')
        later = [t for t in self.rounds() if t > moment * 1e9]
        return later[0] / 1e9 - moment if later else 0.0

    def longest_gap(self, begin, end):
        """Seconds in which no round ended, of those that touch that time."""
        times = [t / 1e9 for t in self.rounds()]
        gaps = [b - a for a, b in zip(times, times[1:]) if b > begin and a < end]
        return max(gaps, default=0.0)

    def finish(self, digest, patience_s=PATIENCE_S):
        try:
            status = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise Failed(f'hangs: {self.err()}') from None
        expect(status == 0, f'ended with {status}: {self.err()}')
        expect(digest is None or self.digest() == digest, f'computed {self.digest()}, without faults {digest}')
        return self.digest()


class Ground:
    def __init__(self, transport='ucx', hold_s=60):
        self.home = tempfile.mkdtemp(prefix='tide-faults-')
        tag = f'{os.getpid() % 100000}'
        self.client, self.switch, self.server = (f'tide{tag}{x}' for x in 'csa')
        self.hold_s = hold_s
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith(('TIDE_', 'LD_'))}
        self.environment.update(TIDE_LOG='info', TIDE_TRANSPORT=transport)
        self.wall_clock = {}  # environment of daemons to whom it tells something else
        self.outside, self.within = [], []  # words before each command: other file systems, limits
        self.daemons = {}
        self.of_wrong_time = []  # process ids under libfaketime, whose shared memory outlives a kill
        self.jobs = []

    def program(self, path):
        return os.path.join(BUILD, path)

    def inside(self, namespace, *words):
        return [*self.outside, 'ip', 'netns', 'exec', namespace, *self.within, *words]

    def ip(self, *words):
        done = subprocess.run(['ip', *words], capture_output=True, text=True)
        expect(done.returncode == 0, f'ip {" ".join(words)}: {done.stderr.strip()}')
        return done.stdout

    def __enter__(self):
        try:
            self.wire()
            self.start_scheduler()
            self.start_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wire(self):
        for name in (self.client, self.switch, self.server):
            self.ip('netns', 'add', name)
            self.ip('-n', name, 'link', 'set', 'lo', 'up')
        self.ip('-n', self.switch, 'link', 'add', 'br0', 'type', 'bridge')
        self.ip('-n', self.switch, 'link', 'set', 'br0', 'up')
        hardware = {}
        for name, address, port in ((self.client, CLIENT, 'c0'), (self.server, SERVER, 's0')):
            self.ip('link', 'add', 'eth0', 'netns', name, 'type', 'veth', 'peer', 'name', port, 'netns', self.switch)
            self.ip('-n', self.switch, 'link', 'set', port, 'master', 'br0', 'up')
            self.ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', 'eth0')
            self.ip('-n', name, 'link', 'set', 'eth0', 'up')
            hardware[name] = re.search(r'link/ether (\S+)', self.ip('-n', name, 'link', 'show', 'eth0'))[1]
        # Machines are behind routers, whose addresses stay known: no search for an address after the network is back.
        for name, other, address in ((self.client, self.server, SERVER), (self.server, self.client, CLIENT)):
            self.ip('-n', name, 'neigh', 'replace', address, 'lladdr', hardware[other], 'dev', 'eth0', 'nud',
                    'permanent')
        until(lambda: ' UP ' in self.ip('-n', self.client, '-br', 'link', 'show', 'eth0'), 'the wire')

    def set_wire(self, up):
        """Silently, as where something on the way fails: neither side's own link goes down."""
        state = 'forwarding' if up else 'disabled'
        subprocess.run(['bridge', '-n', self.switch, 'link', 'set', 'dev', 's0', 'state', state], check=True)
        return time.monotonic()

    def set_line_to_scheduler(self, up):
        """The agent's: both are on one machine, and no job's data goes over its loopback device."""
        self.ip('-n', self.server, 'link', 'set', 'lo', 'up' if up else 'down')
        return time.monotonic()

    def reset_connections(self, *but):
        """Each TCP connection from the client's machine is reset, as a firewall does that forgot it; `but` those that
        a filter of ss leaves out."""
        words = ['ss', '-K', '-n', 'state', 'established', 'dst', SERVER, *but]
        done = subprocess.run(self.inside(self.client, *words), capture_output=True, text=True)
        expect(done.returncode == 0, f'ss -K: {done.stderr.strip()}')
        return time.monotonic()

    def start(self, name, words, ready):
        with open(os.path.join(self.home, f'{name}.log'), 'a') as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, env=self.environment | self.wall_clock,
                                       stdin=subprocess.DEVNULL)
        self.daemons[name] = process
        if self.wall_clock:
            self.of_wrong_time.append(process.pid)
        until(lambda: os.path.exists(ready) or process.poll() is not None, f'{name} is ready', 30)
        expect(process.poll() is None, f'{name} ended: {self.log(name)}')
        os.unlink(ready)

    def log(self, name):
        with open(os.path.join(self.home, f'{name}.log'), errors='replace') as file:
            return file.read()[-3000:]

    def start_scheduler(self):
        ready = os.path.join(self.home, 'ready')
        self.start('scheduler', self.inside(
            self.server, self.program('scheduler/tide-scheduler'), '--state', os.path.join(self.home, 'state'),
            '--listen', f'{SERVER}:{PORT}', '--door', f'{SERVER}:{PORT + 1}', '--ready-file', ready), ready)

    def start_agent(self):
        ready, boot_id = os.path.join(self.home, 'agent-ready'), os.path.join(self.home, 'boot_id')
        with open(boot_id, 'w', encoding='ascii') as file:
            file.write('11111111-2222-3333-4444-555555555555\n')
        agent = (f'{self.program("server/tide-agent")} --scheduler {SERVER}:{PORT} --listen {SERVER}:0 --name far '
                 f'--dir {self.home}/agent --softgpu-devices 2 --hold-s {self.hold_s} --ready-file {ready}')
        script = f'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec {agent}'
        self.start('agent', self.inside(self.server, 'unshare', '-m', 'sh', '-c', script), ready)

    def start_job(self, *program):
        self.jobs.append(Job(self, program))
        return self.jobs[-1]

    def run(self, rounds, pause_us=5000, *options):
        return self.start_job('steady', '--rounds', str(rounds), '--pause-us', str(pause_us), *options)

    def tide(self, *words):
        """The administrator's, on the scheduler's machine."""
        command = [self.program('tools/tide/tide'), '--pool', f'{SERVER}:{PORT}', *words]
        return subprocess.run(self.inside(self.server, *command), env=self.environment, capture_output=True, text=True)

    def takes_jobs(self):
        words = [self.program('tools/tide/tide'), '--pool', f'{SERVER}:{PORT}', 'run', '-g', '1', '--', 'true']
        done = subprocess.run(self.inside(self.client, *words), env=self.environment, capture_output=True)
        return done.returncode == 0

    def workers(self):
        found = subprocess.run(['ip', 'netns', 'pids', self.server], capture_output=True, text=True).stdout.split()
        workers = []
        for pid in found:
            try:
                with open(f'/proc/{pid}/comm') as file:
                    if file.read().strip() == 'tide-worker':
                        workers.append(int(pid))
            except OSError:
                pass
        return workers

    def set_wall_clock(self, offset):
        """Of daemons that were started since the first time, as '+3d'. False: nothing here can do that."""
        found = sorted(glob.glob('/usr/lib/*/faketime/libfaketimeMT.so.1'))
        path = os.path.join(self.home, 'wall_clock')
        with open(path + '.part', 'w', encoding='ascii') as file:
            file.write(offset + '\n')
        os.rename(path + '.part', path)
        if found:
            self.wall_clock = {'LD_PRELOAD': found[0], 'FAKETIME_TIMESTAMP_FILE': path, 'FAKETIME_NO_CACHE': '1',
                               'DONT_FAKE_MONOTONIC': '1', 'FAKETIME_DONT_FAKE_MONOTONIC': '1'}
        return bool(found)

    def send(self, name, number):
        self.daemons[name].send_signal(number)

    def kill(self, name, how=signal.SIGKILL):
        process = self.daemons.pop(name)
        process.send_signal(how)
        process.wait()

    def __exit__(self, *_):
        for job in self.jobs:
            job.process.kill()
            job.process.wait()
        for process in self.daemons.values():
            process.kill()
            process.wait()
        for name in (self.client, self.switch, self.server):
            left = subprocess.run(['ip', 'netns', 'pids', name], capture_output=True, text=True).stdout.split()
            for pid in left:  # of this ground only: nobody else is in it
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True)
        for pid in self.of_wrong_time:
            for left in (f'/dev/shm/faketime_shm_{pid}', f'/dev/shm/sem.faketime_sem_{pid}'):
                if os.path.exists(left):
                    os.unlink(left)
        shutil.rmtree(self.home, ignore_errors=True)
