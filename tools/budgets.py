"""What the path of a call may cost, and costs: launches, copies, starting, lying still. For tools/bench; each figure
beside its floor from the same run and, where there is one, its budget (docs/performance.md)."""

import json
import os
import re
import statistics
import subprocess
import time

import programs

NO_KERNELS = os.path.join(programs.ROOT, 'build', 'tools', 'bench_driver', 'libsoftgpu_no_kernels.so')
STARTS = 11
IDLE_S, IDLE_RUNS = 6, 3
SIZES = (('4 KiB', 4 << 10), ('64 KiB', 64 << 10), ('1 MiB', 1 << 20), ('16 MiB', 16 << 20), ('256 MiB', 256 << 20),
         ('1 GiB', 1 << 30))
WAYS = (('host to device, pageable', 'pageable_in'), ('host to device, pinned', 'pinned_in'),
        ('device to host, pageable', 'pageable_out'), ('device to host, pinned', 'pinned_out'))


def figure(name, value, unit, floor=None, runs=1, budget=None, least=False):
    """`budget`: the most that it may be, or with `least` the least."""
    met = None if budget is None else value >= budget if least else value <= budget
    return {'name': name, 'value': value, 'unit': unit, 'floor': floor, 'ratio': value / floor if floor else None,
            'budget': budget, 'met': met, 'runs': runs}


def program(name, arguments=()):
    found = next(program for program in programs.ours() if program.name == name)
    return programs.Program(name, found.folder, found.sources, found.expect, list(arguments), found.options, gpus=1,
                            files=found.files)


def values_of(pool, work, name, *arguments):
    job = program(name, arguments)
    run = job.run(os.path.join(work, job.name), pool.before(job), pool.env)
    if run.verdict() != 'ok':
        raise SystemExit(f'{name}: {run.verdict()}: {run.why()}')
    return {key: float(value) for key, value in re.findall(r'^(\w+) ([\d.]+)$', run.out, flags=re.M)}


def launches(work):
    """Above a driver that runs no kernels: they would run on the same cores."""
    if not os.access(NO_KERNELS, os.R_OK):
        raise SystemExit(f'no {NO_KERNELS}: run tools/build first')
    with programs.Pool(programs.find_tide(), os.path.join(work, 'pool-launches'), 1, TIDE_SOFTGPU=NO_KERNELS) as pool:
        v = values_of(pool, work, 'launch_cost', '--batches', '1001', '--burst', '50000')
    floor, runs = v['floor_ns'], int(v['runs'])
    yield figure('asynchronous launch, driver API', v['launch_driver_ns'], 'ns', floor, runs, 150)
    yield figure('asynchronous launch, runtime', v['launch_runtime_ns'], 'ns', floor, runs)
    yield figure('asynchronous launch, 99 % of them', v['launch_p99_ns'], 'ns', floor, runs, 1000)
    yield figure('asynchronous launch, 2 threads', v['launch_2_threads_ns'], 'ns', floor, runs, 150)
    yield figure('asynchronous launch, 8 threads', v['launch_8_threads_ns'], 'ns', floor, runs, 150)
    yield figure('worker: launches executed', v['executed_per_second'] / 1e6, 'M/s', None, 21, 1, True)


def copies(work, transport, floors):
    """`floors`: of a size and a direction, GB/s; None: what memcpy reaches in the program."""
    with programs.Pool(programs.find_tide(), os.path.join(work, f'pool-copies-{transport}'), 1,
                       TIDE_TRANSPORT=transport) as pool:
        v = values_of(pool, work, 'copy_cost', '--mib', '1024')
    for way, key in WAYS:
        for size, count in SIZES:
            floor = floors(count, key.endswith('_in')) if floors else v[f'memcpy_{count}']
            value = v[f'{key}_{count}']
            yield figure(f'{transport}: {way}, {size}', value, 'GB/s', floor, int(v[f'runs_{count}']),
                         None if floor is None else 0.95 * floor, True)


def ucx_floors():
    """What UCX alone reaches over TCP between two processes here, by rdma-bench."""
    path = os.path.join(programs.ROOT, 'build', 'tools', 'rdma_bench', 'rdma-bench')
    serve = subprocess.Popen([path, 'serve', '--port', '0'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True)
    try:
        port = re.search(r'port (\d+)', serve.stdout.readline()).group(1)
        done = subprocess.run([path, '127.0.0.1', '--port', port, '--paths', 'ucx-tcp', '--tests',
                               'bandwidth,bandwidth-back', '--json'], capture_output=True, text=True, timeout=120)
        rows = json.loads(done.stdout)['rows']
    finally:
        serve.terminate()
        serve.wait()
    found = {(row['bytes'], row['test'] == 'bandwidth'): row['gbytes_per_s'] for row in rows}
    largest = max(count for count, _ in found)
    return lambda count, to_server: found.get((min(count, largest), to_server))


def starts(work, transport):
    """A process that uses one vGPU beside the same one that uses nothing and has nothing preloaded."""
    startup = os.path.join(work, 'startup', 'startup')
    script = ('import os, subprocess, sys, time\n'
              'bare = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}\n'
              'for i in range(int(sys.argv[2])):\n'
              '    for word, options, env in (("vgpu", [], os.environ), ("bare", ["--bare", "1"], bare)):\n'
              '        began = time.monotonic()\n'
              '        out = subprocess.run([sys.argv[1], *options], env=env, capture_output=True, text=True).stdout\n'
              '        print(word, 1e3 * (time.monotonic() - began), out.split()[1])\n')
    with programs.Pool(programs.find_tide(), os.path.join(work, f'pool-start-{transport}'), 1,
                       TIDE_TRANSPORT=transport) as pool:
        done = subprocess.run([pool.tide, 'run', '-g', '1', '--', 'python3', '-c', script, startup, str(STARTS)],
                              env=pool.env, capture_output=True, text=True, timeout=120)
    rows = [line.split() for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(rows) != 2 * STARTS:
        raise SystemExit(f'startup: {done.stdout}{done.stderr}')
    median = {(word, i): statistics.median(float(row[i]) for row in rows if row[0] == word)
              for word in ('vgpu', 'bare') for i in (1, 2)}
    bare_ms = median['bare', 1]
    over_ms = median['vgpu', 1] - bare_ms
    yield figure(f'{transport}: a process that uses a vGPU, over a bare one', over_ms, 'ms', bare_ms, STARTS, 20)
    memory_mib = (median['vgpu', 2] - median['bare', 2]) / 1024
    yield figure(f'{transport}: its memory over a bare one\'s', memory_mib, 'MiB', None, STARTS, 32)


def processor_ns(pid):
    """What all threads of a process have used."""
    total = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/schedstat') as file:
            total += int(file.read().split()[0])
    return total


def processes_of(pool, name):
    """Of this pool, by the name of the program."""
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/comm') as comm, open(f'/proc/{pid}/environ', 'rb') as environ:
                if comm.read().strip() == name and f'TIDE_HOME={pool.home}'.encode() in environ.read().split(b'\0'):
                    yield int(pid)
        except OSError:
            continue


def idle(work, transport):
    """Per cent of a core that each process uses while the job does nothing."""
    with programs.Pool(programs.find_tide(), os.path.join(work, f'pool-idle-{transport}'), 1,
                       TIDE_TRANSPORT=transport) as pool:
        job = program('startup')
        process = subprocess.Popen([*pool.before(job), os.path.join(work, 'startup', 'startup'), '--seconds',
                                    str(IDLE_RUNS * IDLE_S + 5)], env=pool.env, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(3)  # what has just been busy lingers
        pids = {name: pid for name in ('startup', 'tide-worker', 'tide-agent') for pid in processes_of(pool, name)}
        used = {name: [] for name in pids}
        for _ in range(IDLE_RUNS):
            before = {name: processor_ns(pid) for name, pid in pids.items()}
            time.sleep(IDLE_S)
            for name, pid in pids.items():
                used[name].append(100 * (processor_ns(pid) - before[name]) / (1e9 * IDLE_S))
        for name, values in used.items():
            idle = statistics.median(values)
            yield figure(f'{transport}: {name} of an idle job', idle, '% core', None, IDLE_RUNS, 0.1)
        process.communicate()


def run(work):
    for name in ('launch_cost', 'copy_cost', 'startup'):
        problem = program(name).compile(os.path.join(work, name))
        if problem:
            raise SystemExit(problem)
    yield from launches(work)
    yield from starts(work, 'shm')
    yield from starts(work, 'ucx')
    yield from idle(work, 'shm')
    yield from idle(work, 'ucx')
    yield from copies(work, 'shm', None)
    yield from copies(work, 'ucx', ucx_floors())
