"""tools/bench --elastic: a job with much state, of which each step writes a share, is moved, suspended and resumed."""

import json
import os
import re
import statistics
import subprocess
import time

import programs

MIB = 1 << 20
SIZES = (64, 256, 1024, 4096)  # MiB
SHARES = (0, 1, 10, 100)       # percent of it that a step writes
STEP_MS = 100
MOVES = 3
COLUMNS = ('MiB', 'written a step', 'moves', 'MiB sent', 'rounds', 'MiB in the pause', 'pause p50 ms', 'max ms',
           'drain', 'copy', 'restore', 'floor ms', 'ratio')
# Until no GPU is held, and until it runs again. Their floor: all of it by memcpy.
AWAY_COLUMNS = ('MiB', 'written a step', 'times', 'MiB kept', 'suspended in ms', 'max ms', 'ratio', 'resumed in ms',
                'max ms', 'ratio', 'floor ms')


def memcpy_bytes_per_s():
    source, best = bytearray(os.urandom(MIB)) * 256, 0
    target = bytearray(len(source))
    for _ in range(3):
        began = time.perf_counter()
        target[:] = source
        best = max(best, len(source) / (time.perf_counter() - began))
    return best


def wait_for(process, word):
    for line in process.stdout:
        if line.startswith(word):
            return
    raise SystemExit(f'bench --elastic: ballast ended before it said "{word}"')


def ask(pool, *words):
    done = subprocess.run([pool.tide, *words, '--json'], env=pool.env, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise SystemExit(f'bench --elastic: tide {" ".join(words)}: {done.stderr.strip()}')
    return json.loads(done.stdout)


def timed(pool, *words):
    """Also how many milliseconds the command took."""
    began = time.perf_counter()
    report = ask(pool, *words)
    return report, 1e3 * (time.perf_counter() - began)


def moves_of(pool, binary, mib, share, moves):
    """The reports of so many moves of one job, which checks its memory at the end, and how long it took to suspend and
    to resume it."""
    name = f'ballast-{mib}-{share}'
    command = [pool.tide, 'run', '-g', '1', '--name', name, '--', binary, '--mib', str(mib), '--share', str(share),
               '--step-ms', str(STEP_MS), '--until-told', '1']
    process = subprocess.Popen(command, env=pool.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(process, 'ready')
    reports = []
    places = [f"{gpu['server']}/{gpu['index']}" for gpu in ask(pool, 'gpus')]
    at = ask(pool, 'job', name)['vgpus'][0]['gpu']
    for _ in range(moves):
        at = next(place for place in places if place != at)
        reports.append(ask(pool, 'migrate', f'{name}:0', at))
        wait_for(process, 'step')
    away = []
    for _ in range(moves):
        _, suspend_ms = timed(pool, 'suspend', name)
        kept = sum(vgpu['kept_in_memory'] + vgpu['kept_on_disk'] for vgpu in ask(pool, 'job', name)['vgpus'])
        _, resume_ms = timed(pool, 'resume', name)
        away.append({'kept': kept, 'suspend_ms': suspend_ms, 'resume_ms': resume_ms})
        wait_for(process, 'step')
    rest, _ = process.communicate()
    if process.returncode != 0 or not re.search(r'^ballast: ok$', rest, re.M):
        raise SystemExit(f'bench --elastic: {name}: status {process.returncode}: {rest[-500:]}')
    return reports, away


def away_row(mib, share, away, rate):
    def middle(key):
        return statistics.median(one[key] for one in away)
    floor_ms = mib * MIB / rate * 1e3
    row = {'mib': mib, 'share': share, 'times': len(away), 'kept': middle('kept'), 'away_floor_ms': floor_ms}
    for way in ('suspend_ms', 'resume_ms'):
        row |= {way: middle(way), f'max_{way}': max(one[way] for one in away), f'{way}_ratio': middle(way) / floor_ms}
    return row


def row_of(mib, share, reports, rate):
    def middle(key):
        return statistics.median(report[key] for report in reports)
    floor_ms = middle('pause_bytes') / rate * 1e3
    pause_ms = middle('pause_ms')
    return {'mib': mib, 'share': share, 'moves': len(reports), 'bytes': middle('bytes'), 'rounds': middle('rounds'),
            'pause_bytes': middle('pause_bytes'), 'pause_ms': pause_ms,
            'pause_max_ms': max(report['pause_ms'] for report in reports), 'drain_ms': middle('drain_ms'),
            'copy_ms': middle('copy_ms'), 'restore_ms': middle('restore_ms'), 'floor_ms': floor_ms,
            'ratio': pause_ms / floor_ms if floor_ms > 0 else None}


def run(work, quick):
    binary = programs.Program('ballast', programs.JOBS, ['ballast.cu'])
    problem = binary.compile(work)
    if problem:
        raise SystemExit(f'bench --elastic: {problem}')
    rate = memcpy_bytes_per_s()
    rows = []
    for mib in SIZES[:2] if quick else SIZES:
        with programs.Pool(programs.find_tide(), os.path.join(work, f'pool-{mib}'), 2) as pool:
            for share in SHARES:
                reports, away = moves_of(pool, os.path.join(work, 'ballast'), mib, share, 2 if quick else MOVES)
                rows.append(row_of(mib, share, reports, rate) | away_row(mib, share, away, rate))
    return rows


def table(rows):
    def cells(row):
        ratio = '-' if row['ratio'] is None else f"{row['ratio']:.1f}"
        return [str(row['mib']), f"{row['share']} %", row['moves'], f"{row['bytes'] / MIB:.0f}", f"{row['rounds']:.0f}",
                f"{row['pause_bytes'] / MIB:.1f}", f"{row['pause_ms']:.1f}", f"{row['pause_max_ms']:.1f}",
                f"{row['drain_ms']:.1f}", f"{row['copy_ms']:.1f}", f"{row['restore_ms']:.1f}", f"{row['floor_ms']:.1f}",
                ratio]
    def away_cells(row):
        return [str(row['mib']), f"{row['share']} %", row['times'], f"{row['kept'] / MIB:.0f}",
                f"{row['suspend_ms']:.0f}", f"{row['max_suspend_ms']:.0f}", f"{row['suspend_ms_ratio']:.1f}",
                f"{row['resume_ms']:.0f}", f"{row['max_resume_ms']:.0f}", f"{row['resume_ms_ratio']:.1f}",
                f"{row['away_floor_ms']:.0f}"]
    return (programs.table([cells(row) for row in rows], list(COLUMNS)) + '\n\n' +
            programs.table([away_cells(row) for row in rows], list(AWAY_COLUMNS)))
