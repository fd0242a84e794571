"""Faults of the wire itself, which the relay makes: it is slow, it loses and repeats and reorders, its delay changes.
None of them is an outage, so a job goes on over it, without one connection made anew for it, and says what it waits
for."""

import json
import time

from ground import PORT, expect, until
from wire import Relay

SLOW = {'rate_kbit': 1000, 'delay_ms': 100, 'loss': 0.01}
SMALL = ('--words', '8192')  # 32 KiB and 4 KiB in turns: a second each on a slow wire
PATIENCE_S = 240
RINGS_KIB = 2 * 16 << 10
SLACK_KIB = 24 << 10


def why(ground):
    """Of the one job that there is: its id, and what `tide why` says."""
    jobs = json.loads(ground.tide('jobs', '--json').stdout)
    if not jobs:
        return None, {'warning': '', 'next': ''}
    return jobs[0]['id'], json.loads(ground.tide('why', jobs[0]['id'], '--json').stdout)


def undisturbed(ground, rounds):
    return ground.run(rounds, 0, *SMALL).finish(None)


def over_a_bad_wire(ground, rounds, random, disturb, **settings):
    """Nothing is lost or done twice, and no connection is given up. How much longer it takes is what is told."""
    begin = time.monotonic()
    digest = undisturbed(ground, rounds)
    usual = time.monotonic() - begin
    with Relay(ground, seed=random.randint(1, 10**6), **settings) as relay:
        begin = time.monotonic()
        job = ground.run(rounds, 0, *SMALL)
        disturb(job, relay)
        job.finish(digest, PATIENCE_S)
        took = time.monotonic() - begin
    expect(job.reconnects() == 0, f'no connection was given up: {job.err()}')
    return max(0.0, took - usual)


def slow_link(ground, _, random, times, long):
    """1 Mb/s, 200 ms, 1 % loss. The job's owner is told that this is what it waits for."""
    rounds = 400 if long else 12

    def look(job, _):
        told = until(lambda: job.over() or 'link' in why(ground)[1]['warning'], f'a warning: {job.err()}', 60)
        expect(not job.over(), f'the warning comes while it runs, not after {told:.1f} s: {job.err()}')
        mine, said = why(ground)
        expect('rdma-bench' in said['next'] and ' ms, ' in said['warning'], f'cause, cost and next step: {said}')
        expect('warning: the link to far is slow' in ground.tide('job', mine).stdout, 'tide job says so')
    for _ in range(times):
        yield over_a_bad_wire(ground, rounds, random, look, **SLOW)


def loss_and_repeats(ground, _, random, times, long):
    """A few frames of a hundred are lost, come twice, are overtaken. The network is fast otherwise, and not blamed."""
    def look(job, _):
        job.wait_for_rounds(40)
    for _ in range(times):
        yield over_a_bad_wire(ground, 4000 if long else 100, random, look, delay_ms=0.2,
                              loss=random.uniform(0.01, 0.04), duplicate=random.uniform(0.01, 0.05),
                              reorder=random.uniform(0.01, 0.1))


def changing_delay(ground, _, random, times, long):
    """Between nothing and a quarter of a second, one way as another: what was measured before is worth nothing."""
    def change(job, relay):
        for _ in range(60 if long else 6):
            relay.set(random.choice(('', 'there', 'back')), delay_ms=random.choice((0, 1, 20, 80, 150, 250)))
            time.sleep(random.uniform(0.3, 1.5))
            if job.over():
                break
        relay.set(delay_ms=0)
    for _ in range(times):
        yield over_a_bad_wire(ground, 3000 if long else 150, random, change)


def slow_link_cut(ground, _, random, times, long):
    """It is silent for some seconds, or its connections are reset, and it is slow as ever when they are made anew. Not
    that of `tide run`: a lost frame more, and it is not back within the 1.5 s that it has (limits.md)."""
    digest = undisturbed(ground, 40 * times)
    with Relay(ground, seed=random.randint(1, 10**6), **SLOW) as relay:
        job = ground.run(40 * times, 0, *SMALL)
        for _ in range(times):
            job.wait_for_rounds(random.randint(1, 6))
            if random.random() < 0.5:
                relay.set(cut=1)
                time.sleep(random.uniform(1, 20 if long else 5))
                relay.set(cut=0)
                healed = time.monotonic()
            else:
                healed = ground.reset_connections('dport', '!=', f':{PORT}')
            yield job.back_after(healed)
        job.finish(digest, 60 + PATIENCE_S * times)
        expect(job.reconnects() <= 2 * times, f'no connection is made anew without need: {job.err()}')


def memory_kib(pid, field):
    with open(f'/proc/{pid}/status', encoding='ascii') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def watch(ground, job, pids, patience_s):
    """Until the job is over: how much larger than now the processes were at most, in KiB, and whether it was warned."""
    begin = time.monotonic()
    before = {name: memory_kib(pid, 'VmRSS') for name, pid in pids.items()}
    grown, warned = dict.fromkeys(pids, 0), False
    while not job.over():
        for name, pid in pids.items():
            try:
                grown[name] = max(grown[name], memory_kib(pid, 'VmHWM') - before[name])
            except (OSError, StopIteration):  # it has ended
                pass
        warned = warned or (not job.over() and 'slow' in why(ground)[1]['warning'])
        expect(time.monotonic() - begin < patience_s, f'it ends: {job.err()}')
        time.sleep(0.3)
    return grown, warned


def flood(ground, mib, pinned, patience_s, **settings):
    """So much that nobody waits for, over such a wire: how long it took, and how much larger both sides became."""
    # Of what is packed, the server keeps more, up to a limit of its own.
    ground.environment['TIDE_COMPRESS'] = 'off'
    program = ('flood', '--mib', str(mib), '--pinned', str(pinned))
    digest = ground.start_job(*program).finish(None)
    with Relay(ground, delay_ms=20) as relay:
        job = ground.start_job(*program)
        until(lambda: 'filled' in job.read(job.out_path) or job.over(), f'it begins: {job.err()}')
        relay.set(**settings)
        begin = time.monotonic()
        grown, warned = watch(ground, job, {'client': job.program_pid(), 'worker': ground.workers()[0]}, patience_s)
        job.finish(digest)
    expect(all(kib < RINGS_KIB + SLACK_KIB for kib in grown.values()), f'bounded memory, in KiB: {grown}')
    expect(job.reconnects() == 0, f'no connection was given up: {job.err()}')
    expect(warned, 'the job was told what it waits for')
    return time.monotonic() - begin, grown


def much_queued(ground, _, random, times, long):
    """64 MiB that nobody waits for, pageable and page-locked in turns, over a wire that carries a fraction of it: it
    waits in the program's own memory, and neither side keeps more than the rings. The job's owner is told."""
    for trial in range(times):
        settings, patience_s = (SLOW, 3000) if long else ({'rate_kbit': 60_000, 'loss': 0.001}, PATIENCE_S)
        yield flood(ground, 64, trial % 2, patience_s, **settings)[0]
