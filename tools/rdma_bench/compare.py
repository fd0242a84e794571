#!/usr/bin/env python3
"""rdma-bench's figures beside ucx_perftest's (Debian's ucx-utils), on the same path of this machine.

  tools/rdma_bench/compare.py BUILD/tools/rdma_bench/rdma-bench [--rounds N] [--json]

Both sides of both programs are pinned to the same two cores; the two programs take turns within a second, because the
placement of virtual cores changes from second to second. For each figure: both medians, the median of the rounds'
ratios, how far the ratios are spread, and the ratio of the best of each, which load changes less. Status 77: there is
no ucx_perftest here."""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

PATHS = {  # ours -> what UCX is told for the same
    'ucx-tcp': {'UCX_TLS': 'tcp', 'UCX_NET_DEVICES': 'lo'},
    'ucx-posix': {'UCX_TLS': 'posix'},
    'ucx-sysv': {'UCX_TLS': 'sysv'},
    'ucx-cma': {'UCX_TLS': 'posix,cma'},
}
WINDOW = 32  # messages under way, as in path.h up to 1 MiB
CASES = [  # our test, bytes, ucx_perftest's test
    ('latency', 8, 'ucp_am_lat'),
    ('latency', 4096, 'ucp_am_lat'),
    ('rate', 8, 'ucp_am_bw'),
    ('bandwidth', 4096, 'ucp_am_bw'),
    ('bandwidth', 65536, 'ucp_am_bw'),
    ('bandwidth', 1 << 20, 'ucp_am_bw'),
]
DURATION_MS = 200
PATIENCE_S = 60


def pinned(core, *words):
    return ['taskset', '-c', str(core), *map(str, words)]


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        return taken.getsockname()[1]


def wait_for_listener(port):
    """Asks the kernel: a connection would be the server's only client."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with open('/proc/net/tcp', encoding='ascii') as file:
            if any(f':{port:04X} ' in line.split('rem')[0][:30] and ' 0A ' in line for line in file):
                return
        time.sleep(0.02)
    raise RuntimeError(f'ucx_perftest does not listen on port {port}')


def ours(program, port, path, test):
    """bytes -> figure."""
    words = pinned(1, program, '127.0.0.1', '--port', port, '--paths', path, '--tests', test, '--duration', DURATION_MS,
                   '--size-max', '1MiB', '--spin', '--json')
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    report = json.loads(done.stdout)
    if report['failure'] or not report['rows']:
        raise RuntimeError(report['failure'] or report['paths'][0]['why'])
    return {row['bytes']: row['us']['p50'] or row['messages_per_s'] for row in report['rows']}


def theirs(path, test, size, iterations):
    env = dict(os.environ, **PATHS[path])
    port = free_port()
    words = ['ucx_perftest', '-p', port]
    server = subprocess.Popen(pinned(0, *words), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_listener(port)
        words = pinned(1, 'ucx_perftest', '127.0.0.1', '-p', port, '-t', test, '-s', size, '-n', iterations, '-w', 200,
                       '-O', WINDOW, '-f', '-v')
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        server.wait(PATIENCE_S)
    finally:
        server.kill()
        server.wait()
    figures = dict(zip(*(line.split(',') for line in done.stdout.strip().split('\n')[-2:])))
    return float(figures['50.0_percentile_lat'] if test == 'ucp_am_lat' else figures['overall_mr'])


def iterations_for(test, value):
    """As many as take about as long as ours."""
    per_s = 1e6 / (2 * value) if test == 'ucp_am_lat' else value
    return max(100, int(per_s * DURATION_MS / 1000))


def compare(program, port, path, rounds):
    for test in dict.fromkeys(case[0] for case in CASES):
        cases = [case for case in CASES if case[0] == test]
        pairs = {case: [] for case in cases}
        for _ in range(rounds):
            here = ours(program, port, path, test)
            for case in cases:
                _, size, their_test = case
                pairs[case].append((here[size], theirs(path, their_test, size, iterations_for(their_test, here[size]))))
        for case, figures in pairs.items():
            ratios = sorted(a / b for a, b in figures)
            best = min if test == 'latency' else max
            best = best(a for a, _ in figures) / best(b for _, b in figures)
            here, there = (statistics.median(each) for each in zip(*figures))
            yield {'path': path, 'test': test, 'bytes': case[1], 'unit': 'us' if test == 'latency' else 'messages/s',
                   'ours': here, 'theirs': there, 'ratio': statistics.median(ratios), 'best': best, 'least': ratios[0],
                   'most': ratios[-1], 'rounds': rounds}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('program')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--paths', default=','.join(PATHS))
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args()
    if not shutil.which('ucx_perftest'):
        print('compare: no ucx_perftest here (apt install ucx-utils)', file=sys.stderr)
        return 77
    port = free_port()
    server = subprocess.Popen(pinned(0, options.program, 'serve', '--port', port), stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        found = []
        for path in options.paths.split(','):
            for row in compare(options.program, port, path, options.rounds):
                found.append(row)
                if not options.json:
                    print(f"{path:10} {row['test']:10} {row['bytes']:8} B  rdma-bench {row['ours']:14.3f}  "
                          f"ucx_perftest {row['theirs']:14.3f} {row['unit']:10}  ratio {row['ratio']:.3f} "
                          f"({row['least']:.3f} to {row['most']:.3f}), of the best {row['best']:.3f}", flush=True)
    finally:
        server.kill()
        server.wait()
    if options.json:
        print(json.dumps(found, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
