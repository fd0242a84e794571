"""tools/bench --turns: more jobs than fit on one GPU, taking turns, beside one after the other."""

import json
import os
import re
import subprocess
import time

import programs

JOBS, MIB, GPU_MEMORY = 8, 1024, '4GiB'
STEPS, STEP_MS, SHARE = 40, 250, 10
WAYS = ('off', 'auto', '10s')
COLUMNS = ('turns', 'all done in s', 'beside off', 'first done in s', 'mean s', 'all began within s', 'switches',
           'suspending and resuming, p50 ms')


def switch_times(pool, known):
    """What suspending and resuming took together, of each time that is not `known` yet."""
    done = subprocess.run([pool.tide, 'jobs', '--json'], env=pool.env, capture_output=True, text=True, timeout=60)
    for job in json.loads(done.stdout) if done.returncode == 0 else []:
        taken = job['turn']['switch_ms']
        if job['state'] == 'running' and job['moves'] >= 2 and taken != 0:
            known[job['name'], job['moves']] = taken


def middle(values):
    return values[len(values) // 2] if values else None


def run_way(work, way, arguments, jobs):
    """All jobs are asked for at once; when each was ready, and when it was done."""
    home = os.path.join(work, f'pool-{way}')
    os.makedirs(home)
    config = os.path.join(home, 'pool.toml')
    with open(config, 'w') as file:
        file.write(f'[pool]\nturns = "{way}"\n')
    binary = os.path.join(work, 'ballast')
    with programs.Pool(programs.find_tide(), home, 1, up=['--gpu-memory', GPU_MEMORY, '--config', config]) as pool:
        began = time.monotonic()
        running = []
        for number in range(jobs):
            out = open(os.path.join(home, f'{number}.out'), 'w+')
            running.append((subprocess.Popen([pool.tide, 'run', '-g', '1', '--name', f'job{number}', '--', binary,
                                              *map(str, arguments)], env=pool.env, stdin=subprocess.DEVNULL,
                                             stdout=out, stderr=subprocess.DEVNULL), out))
        ready, done = [None] * jobs, [None] * jobs
        asked, switches = 0, {}
        while None in done:
            time.sleep(0.05)
            if time.monotonic() - asked > 1:
                asked = time.monotonic()
                switch_times(pool, switches)
            for number, (process, out) in enumerate(running):
                if ready[number] is None and os.path.getsize(out.name) > 0:
                    ready[number] = time.monotonic() - began
                if done[number] is None and process.poll() is not None:
                    done[number] = time.monotonic() - began
        digests = set()
        for number, (process, out) in enumerate(running):
            out.seek(0)
            text = out.read()
            out.close()
            if process.returncode != 0 or 'ballast: ok' not in text:
                raise SystemExit(f'bench --turns: job {number} ({way}): status {process.returncode}: {text[-500:]}')
            digests.add(re.search('digest ([0-9a-f]{16})', text)[1])
        ended = subprocess.run([pool.tide, 'jobs', '--ended', '--json'], env=pool.env, capture_output=True, text=True)
        moves = sum(job['moves'] for job in json.loads(ended.stdout))
    return {'way': way, 'jobs': jobs, 'digests': sorted(digests), 'total_s': max(done), 'first_s': min(done),
            'mean_s': sum(done) / jobs, 'ready_s': max(ready), 'switches': moves // 2,
            'switch_ms': middle(sorted(switches.values()))}


def run(work, quick):
    binary = programs.Program('ballast', programs.JOBS, ['ballast.cu'])
    problem = binary.compile(work)
    if problem:
        raise SystemExit(f'bench --turns: {problem}')
    mib, steps, jobs = (64, 20, 3) if quick else (MIB, STEPS, JOBS)
    arguments = ['--mib', mib, '--share', SHARE, '--steps', steps, '--step-ms', STEP_MS]
    rows = [run_way(work, way, arguments, jobs) for way in (('off', '1s') if quick else WAYS)]
    for row in rows:
        if row['digests'] != rows[0]['digests'] or len(row['digests']) != 1:
            raise SystemExit(f'bench --turns: other results with turns: {rows}')
    return rows


def table(rows):
    def shown(value, form):
        return '-' if value is None else form.format(value)
    first = rows[0]['total_s']
    cells = [[row['way'], f"{row['total_s']:.1f}", f"{row['total_s'] / first:.2f}", f"{row['first_s']:.1f}",
              f"{row['mean_s']:.1f}", f"{row['ready_s']:.1f}", row['switches'], shown(row['switch_ms'], '{:.0f}')]
             for row in rows]
    return programs.table(cells, list(COLUMNS))
