"""tools/bench --fractions: jobs that share a GPU, and what part of its time each got beside what it asked for."""

import os
import re
import statistics
import subprocess

import programs

SECONDS = 6
STEPS = (4000, 40_000, 200_000)  # of a kernel
PARTS = ((0.5, 0.5), (0.25, 0.75), (0.1, 0.9), (0.25, 0.25, 0.5))
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


def run_beside(pool, binary, parts, steps, seconds):
    jobs = [subprocess.Popen([pool.tide, 'run', '-g', str(part), '--', binary, '--seconds', str(seconds), '--work',
                              str(steps)], env=pool.env, stdout=subprocess.PIPE, text=True) for part in parts]
    outputs = [job.communicate()[0] for job in jobs]
    if any(job.returncode != 0 for job in jobs):
        raise SystemExit(f'bench --fractions: a job with parts {parts} failed: {outputs}')
    return rates(outputs)


def run(work, quick):
    binary = programs.Program('laps', programs.JOBS, ['laps.cu'])
    problem = binary.compile(work)
    if problem:
        raise SystemExit(f'bench --fractions: {problem}')
    path = os.path.join(work, 'laps')
    rows = []
    with programs.Pool(programs.find_tide(), os.path.join(work, 'pool'), 1) as pool:
        for steps in STEPS[1:2] if quick else STEPS:
            alone = run_beside(pool, path, (1,), steps, 3)[0]
            for parts in PARTS[:2] if quick else PARTS:
                got = run_beside(pool, path, parts, steps, SECONDS)
                rows.append({'parts': parts, 'steps': steps, 'got': [rate / sum(got) for rate in got],
                             'kernels_per_s': sum(got), 'alone_kernels_per_s': alone})
    return rows


def table(rows):
    def cells(row):
        return [' + '.join(f'{part:g}' for part in row['parts']), str(row['steps']),
                ' + '.join(f'{part:.3f}' for part in row['got']), f"{row['kernels_per_s']:.0f}",
                f"{row['alone_kernels_per_s']:.0f}", f"{row['kernels_per_s'] / row['alone_kernels_per_s']:.2f}"]
    worst = max(abs(got / part * sum(row['parts']) - 1) for row in rows for got, part in zip(row['got'], row['parts']))
    cost = statistics.median(row['kernels_per_s'] / row['alone_kernels_per_s'] for row in rows)
    return (programs.table([cells(row) for row in rows], list(COLUMNS)) +
            f'\n\nfarthest from its part: {100 * worst:.0f} %; all together beside one alone: {cost:.2f} (median)')
