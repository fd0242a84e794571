"""The faults of running out: of room in a file system, and of what a process may have (RLIMIT). What runs goes on, what
is new is refused in words that say what is full, or too small, and where; and all is well when there is room again."""

import os
import re
import subprocess
import time

from ground import PORT, SERVER, Failed, expect, until

ROUND_US = 5000


class SmallDisks:
    """The scheduler's state, the agent's directory and /dev/shm on small file systems that nobody else sees."""

    def __init__(self, ground):
        self.state, self.agent, self.shared = f'{ground.home}/state', f'{ground.home}/agent', '/dev/shm'
        mounts = [f'mkdir -p {path} && mount -t tmpfs -o size=2m,nr_inodes=200 tide {path}'
                  for path in (self.state, self.agent, self.shared)]
        script = ' && '.join(mounts) + ' && echo made && exec sleep infinity'
        self.holder = subprocess.Popen(['unshare', '-m', '--propagation', 'private', 'sh', '-c', script],
                                       stdout=subprocess.PIPE)
        expect(self.holder.stdout.readline() == b'made\n', 'small file systems')
        self.holder.stdout.close()
        ground.daemons['file systems'] = self.holder
        ground.outside = ['nsenter', f'--mount=/proc/{self.holder.pid}/ns/mnt', '--']
        for name in ('agent', 'scheduler'):
            ground.kill(name)
        ground.start_scheduler()
        ground.start_agent()
        ground.small_disks = self

    def inside(self, path):
        return f'/proc/{self.holder.pid}/root{path}'

    def fill(self, *paths):
        """Neither a byte nor a file more."""
        for path in paths:
            try:
                with open(self.inside(f'{path}/filler'), 'wb', buffering=0) as file:
                    while file.write(bytes(4096)) == 4096:
                        pass
            except OSError:
                pass
            try:
                for number in range(1000):
                    with open(self.inside(f'{path}/filler-{number}'), 'wb'):
                        pass
                raise Failed(f'{path} is never full')
            except OSError:
                pass

    def free(self, *paths):
        for path in paths:
            for name in os.listdir(self.inside(path)):
                if name.startswith('filler'):
                    os.unlink(self.inside(f'{path}/{name}'))


def ask(ground):
    """What `tide run` says to who wants a GPU now."""
    words = [ground.program('tools/tide/tide'), '--pool', f'{SERVER}:{PORT}', 'run', '-g', '1', '--', 'true']
    try:
        done = subprocess.run(ground.inside(ground.client, *words), env=ground.environment, capture_output=True,
                              text=True, timeout=30)
    except subprocess.TimeoutExpired:
        raise Failed('tide run hangs') from None
    return done.returncode, done.stderr


def full_disks(ground, reference, random):
    """What is told is how long it takes from there being room until a job is taken."""
    disks = getattr(ground, 'small_disks', None) or SmallDisks(ground)
    until(ground.takes_jobs, 'the pool is there', 20)
    long, short = reference(1500), reference(60)
    job = ground.run(1500, ROUND_US)
    job.wait_for_rounds(random.randint(2, 20))
    disks.fill(disks.state, disks.agent, disks.shared)
    status, said = ask(ground)
    expect(status != 0 and disks.state in said and 'full' in said and said.count('\n') == 1, f'one clear error: {said}')
    job.wait_for_rounds(10)

    disks.free(disks.state)  # the agent's is full still
    until(ground.takes_jobs, 'new jobs need only the record', 20)
    second = ground.run(60, 0)
    until(second.over, 'a job that began now ends', 30)
    if second.process.returncode == 0:
        second.finish(short)
    else:
        expect(disks.agent in second.err(), f'it says what is full: {second.err()}')

    disks.fill(disks.state)
    ground.kill('scheduler')
    try:
        ground.start_scheduler()
    except Failed as refused:
        expect(disks.state in str(refused) and 'full' in str(refused), f'one clear error: {refused}')
    else:
        ground.kill('scheduler')
    disks.free(disks.state)
    ground.start_scheduler()
    disks.free(disks.agent, disks.shared)
    took = until(ground.takes_jobs, 'it takes jobs', 20)
    expect(job.process.poll() is None, f'the first job runs: {job.err()}')
    expect('running' in ground.tide('jobs').stdout, f'and is known: {ground.tide("jobs").stdout}')
    ground.run(60, 0).finish(short)
    job.finish(long)
    return took


LIMITS = re.compile(r'RLIMIT_\w+|ulimit -\w')


def ends_clearly(job, digest, what):
    """It works, or says which limit is too small."""
    begin = time.monotonic()
    until(job.over, f'{what}: the job ends\n{job.err()}', 30)
    if job.process.returncode == 0:
        job.finish(digest)
        return 'works'
    took = time.monotonic() - begin
    expect(LIMITS.search(job.err()),
           f'{what}: {job.process.returncode} in {took:.1f} s, and no word of the limit: {job.err()}')
    return 'refused'


def limited(*words):
    return ['prlimit', *words, '--']


def client_limits(ground, reference, _):
    digest, begin = reference(60), time.monotonic()
    for words in (['--nofile=10:10'], ['--nofile=16:16'], ['--nofile=24:24'], ['--nofile=32:32'], ['--nofile=64:64'],
                  ['--memlock=65536:65536'], ['--as=3000000000'], ['--nofile=256:256', '--memlock=65536:65536']):
        ground.within = limited(*words)
        job = ground.run(60, 0)
        ground.within = []
        how = ends_clearly(job, digest, f'client with {" ".join(words)}')
        expect(how == 'works' or 'nofile=256' not in words[0], f'{words}: {job.err()}')
    # Threads and processes count for who is not root.
    for count in (1, 2, 3, 4, 8):
        ground.within = limited(f'--nproc={count}:{count}') + ['setpriv', '--reuid=65534', '--clear-groups', '--']
        job = ground.run(60, 0)
        ground.within = []
        ends_clearly(job, digest, f'client with nproc={count}')
    return time.monotonic() - begin


def daemon_limits(name, cases):
    def fault(ground, reference, _):
        digest, begin = reference(60), time.monotonic()
        for words, works in cases:
            ground.kill(name)
            ground.within = limited(*words)
            try:
                getattr(ground, f'start_{name}')()
            except Failed as refused:
                expect(not works and LIMITS.search(str(refused)), f'{name} with {words}: {refused}')
                ground.within = []
                getattr(ground, f'start_{name}')()
            ground.within = []
            until(ground.takes_jobs, f'{name} with {words}: it takes jobs', 20)
            jobs = [ground.run(60, 0) for _ in range(2)]
            for job in jobs:
                how = ends_clearly(job, digest, f'{name} with {words}')
                expect(how == 'works' or not works, f'{name} with {words}: {job.err()}')
        return time.monotonic() - begin
    return fault


AGENT_CASES = [(['--nofile=40:40'], False), (['--nofile=128:128'], True), (['--memlock=65536:65536'], True),
               (['--as=4000000000'], False)]
SCHEDULER_CASES = [(['--nofile=40:40'], False), (['--nofile=128:128'], True), (['--memlock=65536:65536'], True),
                   (['--as=1000000000'], True)]

__all__ = ['AGENT_CASES', 'SCHEDULER_CASES', 'client_limits', 'daemon_limits', 'full_disks']
