"""tools/bench --elastic: a job with much state, of which each step writes a share, is moved, suspended and resumed,
makes checkpoints, and takes turns with another one of its kind."""

import json
import os
import re
import statistics
import subprocess
import sys
import time

import programs

MIB = 1 << 20
SIZES = (64, 256, 1024, 4096, 8192)  # MiB
SHARES = (0, 1, 10, 100)       # percent of it that a step writes
STEP_MS = 100
MOVES = 3
COLUMNS = ('MiB', 'written a step', 'moves', 'MiB sent', 'rounds', 'MiB in the pause', 'pause p50 ms', 'max ms',
           'drain', 'copy', 'restore', 'floor ms', 'ratio')
# Until no GPU is held, and until it runs again. Their floor: all of it by memcpy.
AWAY_COLUMNS = ('MiB', 'written a step', 'times', 'MiB kept', 'suspended in ms', 'max ms', 'ratio', 'resumed in ms',
                'max ms', 'ratio', 'floor ms')
# Of a protected job, but for the first one, which carries everything.
KEPT_COLUMNS = ('MiB', 'written a step', 'checkpoints', 'MiB sent', 'rounds', 'MiB in the pause', 'pause p50 ms',
                'max ms', 'drain', 'copy', 'in all ms', 'of processor', 'floor ms', 'ratio')
PROTECT = '1s'
# Of two jobs of which one fits: suspending one and resuming the other. Their floor: both by memcpy.
TURN_COLUMNS = ('MiB', 'written a step', 'switches', 'p50 ms', 'max ms', 'floor ms', 'ratio')
TURN_SHARES = (0, 100)
PATIENCE_S = 300
# Of its size that a job takes here, where GPUs and servers are memory of this machine: while it is at both ends of a
# move, or one of two comes and the other goes.
MOVE_TIMES, TURN_TIMES = 2.3, 3.2


def memcpy_bytes_per_s():
    source, best = bytearray(os.urandom(MIB)) * 256, 0
    target = bytearray(len(source))
    for _ in range(3):
        began = time.perf_counter()
        target[:] = source
        best = max(best, len(source) / (time.perf_counter() - began))
    return best


def has_room(mib, times, what):
    """Else says that it is left out."""
    with open('/proc/meminfo', encoding='ascii') as file:
        there = int(re.search(r'^MemAvailable: +([0-9]+) kB', file.read(), re.M).group(1)) // 1024
    if times * mib <= there:
        return True
    print(f'bench --elastic: {mib} MiB: {what} left out: that takes {times * mib / 1024:.0f} GiB of memory, '
          f'{there / 1024:.0f} are there', file=sys.stderr)
    return False


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


def start(pool, binary, mib, share, name, *options):
    command = [pool.tide, 'run', '-g', '1', '--name', name, *options, '--', binary, '--mib', str(mib), '--share',
               str(share), '--step-ms', str(STEP_MS), '--until-told', '1']
    return subprocess.Popen(command, env=pool.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process, name):
    rest, _ = process.communicate()
    if process.returncode != 0 or not re.search(r'^ballast: ok$', rest, re.M):
        raise SystemExit(f'bench --elastic: {name}: status {process.returncode}: {rest[-500:]}')


def moves_of(pool, binary, mib, share, moves):
    """The reports of so many moves of one job, which checks its memory at the end, and how long it took to suspend and
    to resume it."""
    name = f'ballast-{mib}-{share}'
    process = start(pool, binary, mib, share, name)
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
    finish(process, name)
    return reports, away


def checkpoints_of(pool, binary, mib, share, count):
    """The reports of so many checkpoints of one job, which checks its memory at the end."""
    name = f'safe-{mib}-{share}'
    process = start(pool, binary, mib, share, name, '--protect', PROTECT)
    wait_for(process, 'ready')
    reports, made = [], 0
    end = time.monotonic() + PATIENCE_S
    while len(reports) <= count:
        if time.monotonic() > end:
            raise SystemExit(f'bench --elastic: {name}: {len(reports)} checkpoints in {PATIENCE_S} s')
        kept = ask(pool, 'job', name)['vgpus'][0]['protection']
        if kept['refused']:
            raise SystemExit(f'bench --elastic: {name}: {kept["problem"]}')
        if kept['made_ms'] != made and 'last' in kept:
            made = kept['made_ms']
            reports.append(kept['last'])
        time.sleep(0.05)
    finish(process, name)
    return reports[1:]


def checkpoint_row(mib, share, reports, rate):
    row = row_of(mib, share, [report | {'restore_ms': 0} for report in reports], rate)
    if row['pause_bytes'] < MIB:
        row['ratio'] = None  # objects, and nothing that takes its time to copy
    return row | {key: statistics.median(report[key] for report in reports) for key in ('total_ms', 'cpu_ms')}


def switches_of(work, binary, mib, share, count):
    """What so many changes between two jobs took, each from its suspension until it ran again, without the waiting."""
    home = os.path.join(work, f'turns-{mib}-{share}')
    os.makedirs(home)
    config = os.path.join(home, 'pool.toml')
    with open(config, 'w', encoding='ascii') as file:
        file.write('[pool]\nturns = "1s"\n')
    up = ['--gpu-memory', f'{mib * 3 // 2}MiB', '--config', config]
    with programs.Pool(programs.find_tide(), home, 1, up=up) as pool:
        both = [start(pool, binary, mib, share, f'turn{i}') for i in range(2)]
        taken, end = {}, time.monotonic() + PATIENCE_S
        while len(taken) < count and time.monotonic() < end:
            for job in ask(pool, 'jobs'):
                ms = job['turn']['switch_ms']
                if job['state'] == 'running' and job['moves'] >= 2 and ms != 0:
                    taken[job['name'], job['moves']] = ms
            time.sleep(0.1)
        if len(taken) < count:
            raise SystemExit(f'bench --elastic: {len(taken)} changes of turns in {PATIENCE_S} s')
        for process in both:
            process.stdin.write('\n')
            process.stdin.flush()
        for i, process in enumerate(both):
            finish(process, f'turn{i}')
    return list(taken.values())[:count]


def turn_row(mib, share, taken, rate):
    floor_ms, middle = 2 * mib * MIB / rate * 1e3, statistics.median(taken)
    return {'mib': mib, 'share': share, 'switches': len(taken), 'switch_ms': middle, 'max_switch_ms': max(taken),
            'floor_ms': floor_ms, 'ratio': middle / floor_ms}


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
    rows, kept, turns = [], [], []
    for mib in SIZES[:2] if quick else SIZES:
        if not has_room(mib, MOVE_TIMES, 'moves'):
            continue
        with programs.Pool(programs.find_tide(), os.path.join(work, f'pool-{mib}'), 2) as pool:
            for share in SHARES:
                reports, away = moves_of(pool, os.path.join(work, 'ballast'), mib, share, 2 if quick else MOVES)
                rows.append(row_of(mib, share, reports, rate) | away_row(mib, share, away, rate))
    ballast = os.path.join(work, 'ballast')
    for mib in SIZES[:1] if quick else SIZES:
        if has_room(mib, MOVE_TIMES, 'checkpoints'):
            home = os.path.join(work, f'safe-{mib}')
            with programs.Pool(programs.find_tide(), home, 2, up=['--servers', '2']) as pool:
                for share in SHARES[::3] if quick else SHARES:
                    made = checkpoints_of(pool, ballast, mib, share, 2 if quick else MOVES)
                    kept.append(checkpoint_row(mib, share, made, rate))
        if has_room(mib, TURN_TIMES, 'turns'):
            for share in TURN_SHARES[:1] if quick else TURN_SHARES:
                turns.append(turn_row(mib, share, switches_of(work, ballast, mib, share, 2 if quick else MOVES), rate))
    return {'moves': rows, 'checkpoints': kept, 'turns': turns}


def checkpoint_table(rows):
    cells = [[str(row['mib']), f"{row['share']} %", row['moves'], f"{row['bytes'] / MIB:.1f}", f"{row['rounds']:.0f}",
              f"{row['pause_bytes'] / MIB:.1f}", f"{row['pause_ms']:.1f}", f"{row['pause_max_ms']:.1f}",
              f"{row['drain_ms']:.1f}", f"{row['copy_ms']:.1f}", f"{row['total_ms']:.0f}", f"{row['cpu_ms']:.0f}",
              f"{row['floor_ms']:.1f}", '-' if row['ratio'] is None else f"{row['ratio']:.1f}"] for row in rows]
    return programs.table(cells, list(KEPT_COLUMNS))


def turn_table(rows):
    cells = [[str(row['mib']), f"{row['share']} %", row['switches'], f"{row['switch_ms']:.0f}",
              f"{row['max_switch_ms']:.0f}", f"{row['floor_ms']:.0f}", f"{row['ratio']:.1f}"] for row in rows]
    return programs.table(cells, list(TURN_COLUMNS))


def table(results):
    rows = results['moves']
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
            programs.table([away_cells(row) for row in rows], list(AWAY_COLUMNS)) +
            '\n\nCheckpoints:\n' + checkpoint_table(results['checkpoints']) +
            '\n\nTurns on one GPU:\n' + turn_table(results['turns']))
