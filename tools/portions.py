"""tools/bench --fractions: jobs that share a GPU, and what part of its time each got beside what it asked for; how long
a small kernel takes beside a busy job, with the latency class and without; and what the virtual GPUs of one job lose by
sharing a GPU."""

import os
import re
import statistics
import subprocess

import programs

SECONDS = 6
STEPS = (4000, 40_000, 200_000)  # of a kernel
PARTS = ((0.5, 0.5), (0.25, 0.75), (0.1, 0.9), (0.25, 0.25, 0.5))
WEIGHTS = ((0.25, 1), (0.25, 3))  # part and weight of each
CLASSES = ('batch', 'interactive')
WAIT_COLUMNS = ('class of who asks', 'steps of a batch kernel', 'asked', 'p50 us', 'p99 us', 'most us',
                'batch kernels/s')
REPLICAS, KERNELS = 4, 16
REPLICA_STEPS = 40
KERNEL_STEPS = (2000, 20_000)
REPLICA_COLUMNS = ('virtual GPUs', 'on GPUs', 'steps of a kernel', 'seconds', 'sum of GPU times', 'ratio')
COLUMNS = ('parts', 'steps of a kernel', 'got', 'kernels/s of all', 'alone', 'ratio')


def laps(text):
    """(count, seconds) of each line."""
    return [(int(count), int(ns) / 1e9) for count, ns in re.findall(r'^laps (\d+) (\d+)$', text, re.M)]


def rates(outputs):
    """Kernels per second of each while all ran, but for the beginning."""
    runs = [laps(output) for output in outputs]
    begin, end = max(run[0][1] for run in runs) + 0.5, min(run[-1][1] for run in runs)
    result = []
    for run in runs:
        inside = [line for line in run if begin <= line[1] <= end]
        result.append((inside[-1][0] - inside[0][0]) / (inside[-1][1] - inside[0][1]))
    return result


def start(pool, options, *command):
    return subprocess.Popen([pool.tide, 'run', *map(str, options), '--', *map(str, command)], env=pool.env,
                            stdout=subprocess.PIPE, text=True)


def run_beside(pool, binary, parts, steps, seconds, weights=None):
    jobs = []
    for i, part in enumerate(parts):
        options = ['-g', part] + (['--weight', weights[i]] if weights else [])
        jobs.append(start(pool, options, binary, '--seconds', seconds, '--work', steps))
    outputs = [job.communicate()[0] for job in jobs]
    if any(job.returncode != 0 for job in jobs):
        raise SystemExit(f'bench --fractions: a job with parts {parts} failed: {outputs}')
    return rates(outputs)


def ask_beside(pool, binary, job_class, steps, seconds):
    """A small kernel every 12 ms, each waited for, beside a job that keeps 16 kernels queued."""
    batch = start(pool, ['-g', 0.5], binary, '--seconds', seconds + 4, '--work', steps)
    batch.stdout.readline()
    asks = start(pool, ['-g', 0.5, '--class', job_class], binary, '--seconds', seconds, '--work', 4000, '--ahead', 1,
                 '--every-ms', 12)
    said, other = asks.communicate()[0], batch.communicate()[0]
    found = re.search(r'^waits (\d+) p50 (\d+) p99 (\d+) most (\d+) us$', said, re.M)
    if asks.returncode != 0 or batch.returncode != 0 or found is None:
        raise SystemExit(f'bench --fractions: a job of class {job_class} beside another failed: {said[-300:]}')
    count, p50, p99, most = map(int, found.groups())
    return {'class': job_class, 'steps': steps, 'asked': count, 'p50_us': p50, 'p99_us': p99, 'most_us': most,
            'batch_kernels_per_s': rates([said, other])[1]}


def replicas(pool, binary, vgpus, gpus, steps):
    job = start(pool, ['-g', vgpus, '--min', gpus], binary, '--gpus', vgpus, '--steps', REPLICA_STEPS, '--work', steps,
                '--kernels', KERNELS)
    said = job.communicate()[0]
    found = re.search(r'^steps \d+ ([0-9.]+) s$', said, re.M)
    if job.returncode != 0 or found is None:
        raise SystemExit(f'bench --fractions: {vgpus} replicas failed: {said[-300:]}')
    return float(found.group(1))


def replica_rows(work, binary, quick):
    rows = []
    for gpus in (1, REPLICAS):
        with programs.Pool(programs.find_tide(), os.path.join(work, f'replicas-{gpus}'), gpus) as pool:
            for steps in KERNEL_STEPS[1:] if quick else KERNEL_STEPS:
                alone = replicas(pool, binary, 1, 1, steps)
                seconds = replicas(pool, binary, REPLICAS, gpus, steps)
                rows.append({'vgpus': REPLICAS, 'gpus': gpus, 'steps': steps, 'seconds': seconds,
                             'gpu_seconds': REPLICAS * alone})
    return rows


def compiled(work, name):
    problem = programs.Program(name, programs.JOBS, [name + '.cu']).compile(work)
    if problem:
        raise SystemExit(f'bench --fractions: {problem}')
    return os.path.join(work, name)


def run(work, quick):
    path = compiled(work, 'laps')
    rows, waits = [], []
    with programs.Pool(programs.find_tide(), os.path.join(work, 'pool'), 1) as pool:
        for steps in STEPS[1:2] if quick else STEPS:
            alone = run_beside(pool, path, (1,), steps, 3)[0]
            for parts in PARTS[:2] if quick else PARTS:
                got = run_beside(pool, path, parts, steps, SECONDS)
                rows.append({'parts': parts, 'steps': steps, 'got': [rate / sum(got) for rate in got],
                             'kernels_per_s': sum(got), 'alone_kernels_per_s': alone})
            parts, weights = zip(*WEIGHTS)
            got = run_beside(pool, path, parts, steps, SECONDS, weights)
            rows.append({'parts': [part * weight for part, weight in WEIGHTS], 'steps': steps, 'weights': weights,
                         'got': [rate / sum(got) for rate in got], 'kernels_per_s': sum(got),
                         'alone_kernels_per_s': alone})
            for job_class in CLASSES:
                waits.append(ask_beside(pool, path, job_class, steps, SECONDS / 2 if quick else SECONDS))
    return {'shares': rows, 'waits': waits, 'replicas': replica_rows(work, compiled(work, 'replicas'), quick)}


def wait_table(rows):
    cells = [[row['class'], row['steps'], row['asked'], row['p50_us'], row['p99_us'], row['most_us'],
              f"{row['batch_kernels_per_s']:.0f}"] for row in rows]
    return programs.table([list(map(str, line)) for line in cells], list(WAIT_COLUMNS))


def replica_table(rows):
    cells = [[str(row['vgpus']), str(row['gpus']), str(row['steps']), f"{row['seconds']:.2f}",
              f"{row['gpu_seconds']:.2f}", f"{row['seconds'] / row['gpu_seconds']:.3f}"] for row in rows]
    return programs.table(cells, list(REPLICA_COLUMNS))


def table(results):
    rows = results['shares']
    def cells(row):
        weights = row.get('weights')
        note = ' (weights ' + ', '.join(map(str, weights)) + ')' if weights else ''
        return [' + '.join(f'{part:g}' for part in row['parts']) + note, str(row['steps']),
                ' + '.join(f'{part:.3f}' for part in row['got']), f"{row['kernels_per_s']:.0f}",
                f"{row['alone_kernels_per_s']:.0f}", f"{row['kernels_per_s'] / row['alone_kernels_per_s']:.2f}"]
    worst = max(abs(got / part * sum(row['parts']) - 1) for row in rows for got, part in zip(row['got'], row['parts']))
    cost = statistics.median(row['kernels_per_s'] / row['alone_kernels_per_s'] for row in rows)
    return (programs.table([cells(row) for row in rows], list(COLUMNS)) +
            f'\n\nfarthest from its part: {100 * worst:.0f} %; all together beside one alone: {cost:.2f} (median)'
            '\n\nA small kernel every 12 ms beside a busy job, 0.5 + 0.5:\n' + wait_table(results['waits']) +
            '\n\nReplicas of one job beside the sum of their GPU times:\n' + replica_table(results['replicas']))
