#!/usr/bin/env python3
"""rdma-bench's figures beside those of ucx_perftest (Debian's ucx-utils) and of perftest (ib_send_lat, ib_send_bw,
ib_write_bw), on the same path of this machine.

  tools/rdma_bench/compare.py BUILD/tools/rdma_bench/rdma-bench [--paths A,B] [--cases LATENCY:8,...] [--rounds N]
                              [--table FILE]

Both sides of all programs are pinned to the same two cores, and what both can be told is the same: transport, device,
message size, messages under way, warm-up, waiting without sleeping. One round is theirs, ours, theirs again, each for
less than a tenth of a second, because the placement of virtual cores changes from second to second; rounds follow each
other.

For each figure: both medians; the median of the rounds' ratios (ours to the mean of the two beside it) and its 95 %
confidence interval, by the sign test; the ratio of the best of each, which load changes least; and what the two runs
of theirs in one round make of it against each other: a difference smaller than that scatter is not seen.
--table FILE adds the rows to a file, as a table of Markdown. Status 77: the other program is not here."""

import argparse
import collections
import contextlib
import json
import math
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

# path: who measures it, too; what UCX is told for the same
Path = collections.namedtuple('Path', 'rival environment')
PATHS = {
    'ucx-tcp': Path('ucx_perftest', {'UCX_TLS': 'tcp', 'UCX_NET_DEVICES': 'lo'}),
    'ucx-posix': Path('ucx_perftest', {'UCX_TLS': 'posix'}),
    'ucx-sysv': Path('ucx_perftest', {'UCX_TLS': 'sysv'}),
    'ucx-cma': Path('ucx_perftest', {'UCX_TLS': 'posix,cma'}),
    'ucx-rc': Path('ucx_perftest', {'UCX_TLS': 'rc_v,ud_v:aux'}),
    'verbs': Path('perftest', {}),
}
# Our test and bytes -> theirs. perftest has no writes with immediate: its sends, too, end in the receiver's queue.
CASES = {
    'latency:8': ('ucp_am_lat', 'ib_send_lat'),
    'latency:4096': ('ucp_am_lat', 'ib_send_lat'),
    'rate:8': ('ucp_am_bw', 'ib_send_bw'),
    'bandwidth:4096': ('ucp_am_bw', 'ib_write_bw'),
    'bandwidth:65536': ('ucp_am_bw', 'ib_write_bw'),
    'bandwidth:1048576': ('ucp_am_bw', 'ib_write_bw'),
}
WINDOW = 32  # messages under way, as in path.h up to 1 MiB
DURATION_MS = 60
WARM_UP = 200
PATIENCE_S = 60
WITHIN = 0.05

Case = collections.namedtuple('Case', 'path test size')
Ends = collections.namedtuple('Ends', 'server client address devices')  # cores; the server's address; RDMA devices


def free_port(address):
    with socket.create_server((address, 0)) as taken:
        return taken.getsockname()[1]


def wait_for_listener(port):
    """Asks the kernel: a connection would be the server's only client."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        for name in ('/proc/net/tcp', '/proc/net/tcp6'):
            with open(name, encoding='ascii') as file:
                if any(words[1].endswith(f':{port:04X}') and words[3] == '0A' for words in map(str.split, file)):
                    return
        time.sleep(0.005)
    raise RuntimeError(f'nobody listens on port {port}')


def run(core, words, env):
    done = subprocess.run(['taskset', '-c', str(core), *map(str, words)], env=env, capture_output=True, text=True,
                          timeout=PATIENCE_S, check=False)
    if done.returncode != 0 and not done.stdout.startswith('{'):
        raise RuntimeError(f'{words[0]}: {done.stdout[-400:]}{done.stderr[-400:]}')
    return done.stdout


@contextlib.contextmanager
def server_of(core, words, env):
    server = subprocess.Popen(['taskset', '-c', str(core), *map(str, words)], env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def environment(case, ends, end):
    more = dict(PATHS[case.path].environment)
    if ends.devices:
        more.update(UCX_NET_DEVICES=f'{ends.devices[end]}:1', TIDE_VERBS_DEVICE=ends.devices[end])
    return {**os.environ, **more}


def ours(program, port, case, ends):
    out = run(ends.client, [program, ends.address, '--port', port, '--paths', case.path, '--tests', case.test,
                            '--sizes', f'{case.size},{case.size}', '--duration', DURATION_MS, '--spin', '--json'],
              environment(case, ends, 1))
    report = json.loads(out)
    if report['failure'] or not report['rows']:
        raise RuntimeError(report['failure'] or report['paths'][0]['why'])
    row = report['rows'][-1]  # the first one warmed up, as theirs does with WARM_UP messages
    return row['us']['p50'] or row['messages_per_s']


def ucx_perftest(case, ends, iterations):
    test, port = CASES[f'{case.test}:{case.size}'][0], free_port(ends.address)
    with server_of(ends.server, ['ucx_perftest', '-p', port], environment(case, ends, 0)) as server:
        wait_for_listener(port)
        out = run(ends.client, ['ucx_perftest', ends.address, '-p', port, '-t', test, '-s', case.size, '-n', iterations,
                                '-w', WARM_UP, '-O', WINDOW, '-f', '-v'], environment(case, ends, 1))
        server.wait(PATIENCE_S)
    figures = dict(zip(*(line.split(',') for line in out.strip().split('\n')[-2:])))
    return float(figures['50.0_percentile_lat'] if test == 'ucp_am_lat' else figures['overall_mr'])


def perftest(case, ends, iterations):
    test, port = CASES[f'{case.test}:{case.size}'][1], free_port(ends.address)
    words = [test, '-F', '-p', port, '-s', case.size, '-n', iterations, '-x', 1]
    words += [] if test == 'ib_send_lat' else ['-N', '-t', WINDOW, '-Q', 1]
    with server_of(ends.server, [*words, '-d', ends.devices[0]], environment(case, ends, 0)) as server:
        wait_for_listener(port)
        out = run(ends.client, [*words, '-d', ends.devices[1], ends.address], environment(case, ends, 1))
        server.wait(PATIENCE_S)
    figures = re.findall(r'^ +\d+ +\d+ .*$', out, re.MULTILINE)[-1].split()
    # bytes, iterations, then least, most, typical; or peak, average (MB/s), messages (millions/s)
    return float(figures[4]) if test == 'ib_send_lat' else float(figures[4]) * 1e6


RIVALS = {'ucx_perftest': ucx_perftest, 'perftest': perftest}


def iterations_for(case, value):
    """As many as take about as long as ours."""
    per_s = 1e6 / (2 * value) if case.test == 'latency' else value
    return max(50, int(per_s * DURATION_MS / 1000))


def interval(values):
    """The 95 % confidence interval of their median, by the sign test; all of them where they are too few."""
    values, count, tail = sorted(values), len(values), 0.0
    for skipped in range(count // 2):
        tail += 2 * math.comb(count, skipped) / 2**count
        if tail > 0.05:
            return values[max(skipped - 1, 0)], values[count - max(skipped, 1)]
    return values[0], values[-1]


def compare(program, port, case, ends, rounds):
    rival = RIVALS[PATHS[case.path].rival]
    here, there, ratios, scatter = [], [], [], []
    expected = ours(program, port, case, ends)
    for _ in range(rounds):
        iterations = iterations_for(case, expected)
        before = rival(case, ends, iterations)
        mine = expected = ours(program, port, case, ends)
        after = rival(case, ends, iterations)
        here.append(mine)
        there += [before, after]
        ratios.append(2 * mine / (before + after))
        scatter.append(after / before)
    best = min if case.test == 'latency' else max
    return {'path': case.path, 'test': case.test, 'bytes': case.size,
            'unit': 'us' if case.test == 'latency' else 'messages/s', 'ours': statistics.median(here),
            'theirs': statistics.median(there), 'ratio': statistics.median(ratios), 'interval': interval(ratios),
            'best': best(here) / best(there), 'control': statistics.median(scatter),
            'control_interval': interval(scatter), 'rounds': rounds}


def verdict(row):
    least, most = row['interval']
    if 1 - WITHIN <= least and most <= 1 + WITHIN:
        return 'yes'
    return 'no' if most < 1 - WITHIN or least > 1 + WITHIN else 'not shown'


def figure(row, name):
    return f"{row[name]:.3f} us" if row['unit'] == 'us' else f"{row[name] / 1e6:.4f} M/s"


def table_row(row):
    spread, control = ('{:.3f} to {:.3f}'.format(*row[name]) for name in ('interval', 'control_interval'))
    return (f"| {row['path']} | {row['test']} | {row['bytes']} | {figure(row, 'ours')} | {figure(row, 'theirs')} | "
            f"{row['ratio']:.3f} | {spread} | {row['best']:.3f} | {control} | {row['rounds']} | {verdict(row)} |")


HEAD = ('| path | test | bytes | rdma-bench | theirs | ratio | its 95 % interval | of the best | '
        'theirs against itself | rounds | within 5 % |\n' + '| --- ' * 11 + '|')


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('program')
    parser.add_argument('--rounds', type=int, default=25)
    parser.add_argument('--paths', default='ucx-tcp,ucx-posix,ucx-sysv,ucx-cma')
    parser.add_argument('--cases', default=','.join(CASES), help='default: all of ' + ', '.join(CASES))
    parser.add_argument('--cores', default='0,1', help="the server's and the client's; default 0,1")
    parser.add_argument('--address', default='127.0.0.1', help="the server's; default 127.0.0.1")
    parser.add_argument('--devices', default='', help="RDMA devices, the server's and the client's: rxe0,rxe1")
    parser.add_argument('--table', help='a file of Markdown that gets the rows')
    options = parser.parse_args()
    unknown = [name for name in options.paths.split(',') if name not in PATHS]
    unknown += [name for name in options.cases.split(',') if name not in CASES]
    if unknown:
        parser.error(f'no path or case {", ".join(unknown)}; there are {", ".join([*PATHS, *CASES])}')
    return options


def show(row, table):
    line = table_row(row)
    print(line, flush=True)
    if table:
        with open(table, 'a', encoding='utf-8') as file:
            file.write(line + '\n')


def main():
    options = parse()
    cores = options.cores.split(',')
    ends = Ends(cores[0], cores[1], options.address, options.devices.split(',') if options.devices else None)
    programs = {'ucx_perftest': 'ucx_perftest', 'perftest': 'ib_send_lat'}
    for path in options.paths.split(','):
        if not shutil.which(programs[PATHS[path].rival]):
            print(f'compare: no {programs[PATHS[path].rival]} here (apt install ucx-utils perftest)', file=sys.stderr)
            return 77
    print(HEAD, flush=True)
    for path in options.paths.split(','):
        port = free_port(ends.address)
        words = [options.program, 'serve', '--listen', ends.address, '--port', port]
        with server_of(ends.server, words, environment(Case(path, '', 0), ends, 0)):
            wait_for_listener(port)
            for name in options.cases.split(','):
                test, size = name.split(':')
                show(compare(options.program, port, Case(path, test, int(size)), ends, options.rounds), options.table)
    return 0


if __name__ == '__main__':
    sys.exit(main())
