"""The faults: each breaks something under jobs that run, as often as it is asked to, and yields after how many seconds
all was well again each time, or raises Failed. A job's digest shows that nothing was lost and nothing done twice."""

import dataclasses
import json
import os
import re
import signal
import time
from typing import Callable

import limits
import links
from ground import Failed, expect, until

ROUND_US, SLOWLY_US = 5000, 50_000  # so long at least a round of the job takes
LEASE_S = 15  # the scheduler's kLeaseMs


def disturbed(ground, reference, random, times, disturb, rounds_each=60, pause_us=ROUND_US):
    """What disturb(job) does so many times to one job, and how long each took."""
    rounds = rounds_each * times
    digest = reference(rounds)
    job = ground.run(rounds, pause_us)
    for _ in range(times):
        job.wait_for_rounds(random.randint(2, min(40, rounds_each // 2)))
        yield disturb(job)
    job.finish(digest)


def partition(ground, reference, random, times, long):
    low, high = (1, 30) if long else (0.3, 4)

    def cut(job):
        ground.set_wire(False)
        time.sleep(random.uniform(low, high))
        return job.back_after(ground.set_wire(True))
    return disturbed(ground, reference, random, times, cut)


def resets(ground, reference, random, times, _):
    return disturbed(ground, reference, random, times, lambda job: job.back_after(ground.reset_connections()))


def resets_while_cut(ground, reference, random, times, _):
    """The client learns that the connection is gone while there is no way to make another."""
    def both(job):
        ground.set_wire(False)
        ground.reset_connections()
        time.sleep(random.uniform(0.3, 2))
        return job.back_after(ground.set_wire(True))
    return disturbed(ground, reference, random, times, both)


def flapping(ground, reference, random, times, _):
    """The network goes again while the connection is being made anew."""
    def flap(job):
        for _ in range(random.randint(2, 5)):
            ground.set_wire(False)
            ground.reset_connections()
            time.sleep(random.uniform(0.05, 0.6))
            healed = ground.set_wire(True)
            time.sleep(random.uniform(0.0, 0.15))
        return job.back_after(healed)
    return disturbed(ground, reference, random, times, flap)


def stopped(pid_of):
    def fault(ground, reference, random, times, long):
        low, high = (LEASE_S + 1, 3 * LEASE_S) if long else (1, 4)

        def stop(job):
            pid = pid_of(ground, job)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(random.uniform(low, high))
            os.kill(pid, signal.SIGCONT)
            return job.back_after(time.monotonic())
        return disturbed(ground, reference, random, times, stop)
    return fault


def each(fault):
    """A fault that ends its job."""
    def many(ground, reference, random, times, _):
        for _ in range(times):
            yield fault(ground, reference, random)
    many.__doc__ = fault.__doc__
    return many


def only_worker(ground, job):
    workers = ground.workers()
    expect(len(workers) == 1, f'one worker, not {workers}: {job.err()}')
    return workers[0]


def client_killed(ground, _, random):
    """Its GPU is free again: no worker is left."""
    job = ground.run(2000, ROUND_US)
    job.wait_for_rounds(random.randint(1, 40))
    os.kill(job.program_pid(), signal.SIGKILL)
    return until(lambda: not ground.workers(), 'the worker ends with its client', 10)


def client_lost(ground, _, random):
    """Its machine is cut off for longer than the session is held. The worker ends, and the job learns that once."""
    job = ground.run(100_000, ROUND_US)
    job.wait_for_rounds(random.randint(1, 20))
    ground.set_wire(False)
    try:
        took = until(lambda: not ground.workers(), 'the worker ends when its time is over', ground.hold_s + 20)
        expect(took >= ground.hold_s - 1, f'held only {took:.1f} s')
    finally:
        healed = ground.set_wire(True)
    until(job.over, 'the job ends with an error', 30)
    expect(job.process.returncode != 0 and 'is lost' in job.err(), f'{job.process.returncode}: {job.err()}')
    return time.monotonic() - healed


def moved_while_cut(ground, reference, random):
    """The move is refused, or the job goes on there, or, where the cut came in between, it has one error. It never
    waits for what nobody will say any more."""
    digest = reference(200)
    job = ground.run(200, ROUND_US)
    job.wait_for_rounds(random.randint(1, 40))
    ground.set_wire(False)
    time.sleep(random.choice((0, 0.2, 2.5)))
    mine = json.loads(ground.tide('jobs', '--json').stdout)[0]['id']
    free = [gpu for gpu in json.loads(ground.tide('gpus', '--json').stdout) if gpu['job'] == '']
    ground.tide('migrate', mine, f'far/{free[0]["index"]}')
    healed = ground.set_wire(True)
    until(job.over, 'the job ends', 30)
    if job.process.returncode == 0:
        job.finish(digest)
    else:
        expect(job.err().count('is lost') == 1, f'one clear error: {job.err()}')
    return time.monotonic() - healed


def workers_killed(ground, reference, random, times, _):
    """Only its vGPU is lost: its job ends with one error, the other goes on."""
    digest = reference(100 * times)
    other = ground.run(100 * times, 20_000)
    other.wait_for_rounds(2)
    first = only_worker(ground, other)
    for _ in range(times):
        job = ground.run(100_000, ROUND_US)
        job.wait_for_rounds(random.randint(1, 40))
        victim = [pid for pid in ground.workers() if pid != first]
        expect(len(victim) == 1, f'a second worker: {victim}')
        begin = time.monotonic()
        os.kill(victim[0], signal.SIGKILL)
        until(job.over, 'the job ends', 20)
        took = time.monotonic() - begin
        expect(job.process.returncode not in (0, None) and job.err().count('is lost') == 1,
               f'one clear error: {job.err()}')
        yield took
    other.finish(digest)


def schedulers_killed(ground, reference, random, times, _):
    """Running jobs do not need it; it comes back with what it knew."""
    def kill(job):
        begin = time.monotonic()
        ground.kill('scheduler')
        time.sleep(random.uniform(0, 1))
        ground.start_scheduler()
        took = job.back_after(begin)
        until(lambda: ground.takes_jobs(), 'it takes jobs again', 20)  # when the agent has come back to it
        return took
    return disturbed(ground, reference, random, times, kill, 100, 20_000)


def agents_killed(ground, reference, random, times, _):
    """And started again, at once or a little later. Jobs notice nothing: what is told is the longest time in which a
    job did not go on."""
    def kill(job):
        workers = ground.workers()
        begin = time.monotonic()
        ground.kill('agent')
        time.sleep(random.choice((0, 0, random.uniform(0, 1))))
        ground.start_agent()
        job.wait_for_rounds(2)
        expect(ground.workers() == workers, f'the same workers: {workers}, {ground.workers()}')
        return job.longest_gap(begin, time.monotonic())
    yield from disturbed(ground, reference, random, times, kill, 100, 20_000)
    expect(ground.takes_jobs(), 'it takes jobs')


def agents_killed_and_connections(ground, reference, random, times, _):
    """The client comes back to an agent that did not start its worker."""
    def kill(job):
        ground.kill('agent')
        ground.reset_connections()
        time.sleep(random.uniform(0, 1))
        ground.start_agent()
        return job.back_after(time.monotonic())
    return disturbed(ground, reference, random, times, kill, 300)


def agent_lost(ground, _, random):
    """It does not come back: the scheduler ends the job when its time is over, and no worker is left."""
    job = ground.run(100_000, SLOWLY_US)
    job.wait_for_rounds(random.randint(1, 20))
    begin = time.monotonic()
    ground.kill('agent')
    until(lambda: job.over() and not ground.workers(), 'the job and its worker end', ground.hold_s + 40)
    took = time.monotonic() - begin
    expect(job.process.returncode != 0, 'with an error')
    expect(len(re.findall('is lost|was ended', job.err())) >= 1, f'which is said: {job.err()}')
    ground.start_agent()
    until(lambda: ground.takes_jobs(), 'its GPUs are there again', 20)
    return took


def past_the_lease(cut, heal):
    """The agent and the scheduler do not hear each other for longer than the lease: the job is ended, nothing of it is
    left when they do, and its GPU serves the next one."""
    def fault(ground, _, random):
        job = ground.run(100_000, SLOWLY_US)
        job.wait_for_rounds(random.randint(1, 20))
        cut(ground)
        try:
            until(job.over, 'the job is ended', LEASE_S + 15)
            expect(job.err().count('was ended') == 1, f'for one reason: {job.err()}')
        finally:
            heal(ground)
        healed = time.monotonic()
        until(lambda: not ground.workers(), 'no worker is left', 20)
        until(lambda: ground.takes_jobs(), 'it takes jobs', 20)
        return time.monotonic() - healed
    return fault


def shorter_than_the_lease(ground, reference, random):
    digest = reference(600)
    job = ground.run(600, ROUND_US)
    job.wait_for_rounds(random.randint(1, 20))
    ground.set_line_to_scheduler(False)
    time.sleep(random.uniform(1, LEASE_S - 7))
    healed = ground.set_line_to_scheduler(True)
    took = job.back_after(healed)
    job.finish(digest)
    until(lambda: ground.takes_jobs(), 'it takes jobs', 20)
    return took


def scheduler_stopped(ground, reference, random):
    """For longer than any lease. What others said meanwhile it has not read, and it blames nobody."""
    digest = reference(400)
    job = ground.run(400, SLOWLY_US)
    job.wait_for_rounds(random.randint(1, 20))
    begin = time.monotonic()
    ground.send('scheduler', signal.SIGSTOP)
    time.sleep(LEASE_S + random.uniform(2, 5))
    ground.send('scheduler', signal.SIGCONT)
    gap = job.longest_gap(begin, time.monotonic())
    job.finish(digest)
    until(lambda: ground.takes_jobs(), 'it takes jobs', 20)
    return gap


def wall_clock_wrong(ground, reference, random):
    """It jumps by hours and years, forwards and back. Nobody's time is over for that."""
    digest = reference(1200)
    expect(ground.set_wall_clock('+0d'), "libfaketime, Debian's package of that name")
    for name in ('agent', 'scheduler'):
        ground.kill(name)
    ground.start_scheduler()
    ground.start_agent()
    job = ground.run(1200, ROUND_US)
    begin = time.monotonic()
    for offset in ('+3h', '+9y', '-2d', '-20y', '+1d'):
        job.wait_for_rounds(random.randint(5, 40))
        ground.set_wall_clock(offset)
        ground.reset_connections()
    gap = job.longest_gap(begin, time.monotonic())
    job.finish(digest)
    expect(ground.takes_jobs(), 'it takes jobs')
    return gap


@dataclasses.dataclass
class Fault:
    name: str
    trials: Callable  # (ground, reference, random, times, long), a generator
    short: int  # how often in each suite
    long: int
    waits: bool = False  # mostly: many grounds at once do not disturb each other
    together: int = 10  # so many trials at most on one ground, with one job where it lives on


FAULTS = [
    Fault('partition', partition, 8, 1000, waits=True),
    Fault('reset', resets, 10, 1000),
    Fault('reset and partition', resets_while_cut, 4, 300),
    Fault('flapping network', flapping, 3, 300),
    Fault('client stopped', stopped(lambda _, job: job.program_pid()), 3, 100, waits=True),
    Fault('worker stopped', stopped(only_worker), 3, 100, waits=True),
    Fault('client killed', each(client_killed), 3, 1000, together=50),
    Fault('worker killed', workers_killed, 1, 1000),
    Fault('moved while cut', each(moved_while_cut), 2, 300),
    Fault('scheduler killed', schedulers_killed, 3, 1000),
    Fault('scheduler stopped', each(scheduler_stopped), 1, 125, waits=True),
    Fault('agent killed', agents_killed, 2, 1000),
    Fault('agent killed, and reset', agents_killed_and_connections, 2, 300),
    Fault('agent cut off', each(shorter_than_the_lease), 1, 100),
    Fault('agent cut off for long', each(past_the_lease(lambda ground: ground.set_line_to_scheduler(False),
                                                        lambda ground: ground.set_line_to_scheduler(True))), 1, 100,
          waits=True),
    Fault('agent stopped for long', each(past_the_lease(lambda ground: ground.send('agent', signal.SIGSTOP),
                                                        lambda ground: ground.send('agent', signal.SIGCONT))), 1, 375,
          waits=True),
    Fault('wall clock', each(wall_clock_wrong), 1, 20),
    Fault('agent lost', each(agent_lost), 1, 100, waits=True),
    Fault('slow link', links.slow_link, 1, 20, waits=True, together=1),
    Fault('loss and repeats', links.loss_and_repeats, 1, 50),
    Fault('delay that changes', links.changing_delay, 1, 50, waits=True),
    Fault('slow link cut', links.slow_link_cut, 1, 100, waits=True),
    Fault('much queued', links.much_queued, 2, 4, waits=True),
    Fault('cut off for good', each(client_lost), 1, 20, waits=True),
    Fault('full file systems', each(limits.full_disks), 2, 50),
    Fault('client limits', each(limits.client_limits), 1, 10),
    Fault('agent limits', each(limits.daemon_limits('agent', limits.AGENT_CASES)), 1, 10),
    Fault('scheduler limits', each(limits.daemon_limits('scheduler', limits.SCHEDULER_CASES)), 1, 10),
]

__all__ = ['FAULTS', 'Failed']
