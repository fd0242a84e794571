"""The cases of tests/rdma/run; this part runs in the virtual machine.

Two machines are played by two settings: the worker has the device at one end of the wire, the client that at the other.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), 'e2e')]
import pool as pools  # noqa: E402
import wire  # noqa: E402

LOSS = ('delay', '5ms', 'loss', '1%')
HELD_S = 15  # so long a session is kept here for a client whose connection broke
ENDS_WITHIN_S = 60  # after its worker died or the wire was cut; the emulated machine is 20 times slower than a real one
LITTLE_MEMLOCK = ('prlimit', '--memlock=65536', 'setpriv', '--bounding-set', '-ipc_lock', '--inh-caps', '-ipc_lock')
MIB = 1 << 20


class Transport:
    def __init__(self, name, both):
        self.name = name
        self.worker = {'TIDE_TRANSPORT': name, 'TIDE_UCX_BIND': wire.WORKER_ADDRESS, **both, **self.device(wire.WORKER)}
        self.client = {**self.worker, **self.device(wire.CLIENT)}

    @staticmethod
    def device(name):
        return {'UCX_NET_DEVICES': f'{name}:1,{wire.DEVICES[name]}', 'TIDE_VERBS_DEVICE': name}


TRANSPORTS = {transport.name: transport for transport in (
    Transport('ucx', {'UCX_TLS': 'rc_verbs'}),
    Transport('verbs', {}),
)}
SHM = Transport('shm', {})


# What is run ---------------------------------------------------------------------------------------------------------

def train():
    return pools.train('--steps', 4)


def copies(mib, rounds):
    return [pools.job_program('bandwidth'), '--mib', mib, '--rounds', rounds]


# Each with the least number of bytes that it sends each way.
JOBS = {'training': (train(), 32 << 10), 'copies': (copies(2, 1), 2 * MIB)}


class OnePool:
    """A pool whose one server is at one end of the wire, and jobs at the other."""

    def __init__(self, transport, *prefix, worker=None):
        self.transport, self.prefix = transport, prefix
        self.client = transport.client
        self.pool = pools.Pool(**(worker or transport.worker))

    def __enter__(self):
        config = os.path.join(self.pool.home, 'pool.toml')
        with open(config, 'w', encoding='ascii') as file:
            file.write(f'[pool]\nlisten = "127.0.0.1:0"\n[[server]]\nname = "node0"\nhold_s = {HELD_S}\n')
        up = subprocess.run([*self.prefix, self.pool.tide_path, 'up', '--gpus', '1', '--config', config],
                            env=self.pool.env, text=True, capture_output=True, timeout=pools.PATIENCE_S)
        assert up.returncode == 0, f'tide up: {up.stderr}'
        return self

    def __exit__(self, *_):
        self.pool.close()

    def env(self, **more):
        return {**self.pool.env, **self.client, **more}

    def run(self, program, *prefix, **more):
        return pools.Result(subprocess.run(
            [*prefix, self.pool.tide_path, 'run', '--', *map(str, program)], env=self.env(**more), text=True,
            capture_output=True, timeout=pools.PATIENCE_S, stdin=subprocess.DEVNULL))

    def end_by_force(self):
        for pid, command in self.pool.processes().items():
            if re.search(r'tide-worker|tests/jobs/', command):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def start(self, program):
        return self.pool.start('--', *program, env=self.env())


def without_rates(text):
    return re.sub(r'[\d.]+ GB/s', '- GB/s', text)


REFERENCE = {}


def reference(name):
    """What the job prints where it and its worker share memory."""
    if name not in REFERENCE:
        with OnePool(SHM) as one:
            result = one.run(JOBS[name][0])
        assert result.status == 0, f'over shm: {result}'
        REFERENCE[name] = without_rates(result.out)
    return REFERENCE[name]


# Cases: each returns what it saw in a few words, or fails by an assertion ---------------------------------------------

def same_output(transport):
    said = []
    with OnePool(transport) as one:
        for name, (program, bytes_each_way) in JOBS.items():
            wanted = reference(name)
            before = wire.Sent()
            began = time.monotonic()
            result = one.run(program)
            took = time.monotonic() - began
            assert result.status == 0, repr(result)
            assert without_rates(result.out) == wanted, f'over shm:\n{wanted}\nover {transport.name}: {result}'
            sent = wire.Sent().since(before)
            sent.must_have_carried(bytes_each_way)
            said.append(f'{name} as over shm in {took:.1f} s ({sent})')
    return '; '.join(said)


def same_output_on_a_bad_wire(transport):
    for name in JOBS:
        reference(name)  # while the wire is good
    with wire.bad(*LOSS) as lost:
        said = same_output(transport)
        assert lost() > 0, f'no packet was lost: {said}'
        return f'{lost()} packets lost; {said}'


def page_locked(transport):
    """Large copies of page-locked memory, each byte looked at by the program; over verbs from and to where they lie."""
    with OnePool(transport) as one:
        before = wire.Sent()
        result = one.run([pools.job_program('pinned'), '--rounds', '2', '--kib', '1024'], TIDE_LOG='debug')
        assert result.status == 0 and 'rounds 2' in result.out, repr(result)
        wire.Sent().since(before).must_have_carried(2 * MIB)
        blocks = len(re.findall(r'verbs: copies of 1024 KiB of memory are sent from where they lie', result.err))
        landed = 'verbs: copies from the GPU come to where they belong' in result.err
    expected = transport.name == 'verbs'
    assert (blocks > 0) == expected and landed == expected, f'{blocks} blocks registered, {landed}: {result.err}'
    return f'{blocks} blocks registered'


def ends_clearly(transport, what_happens, also_said='', within_s=ENDS_WITHIN_S):
    """A job that copies without end must end soon after `what_happens(one)`, with an error, and the next one run."""
    with OnePool(transport) as one:
        before = wire.Sent()
        job = one.start(copies(8, 1000))
        pools.wait_until(lambda: not job.running() or wire.Sent().since(before).bytes[wire.CLIENT] > 4 * MIB,
                         'it copies', pools.PATIENCE_S)
        assert job.running(), f'ended by itself: {job.err()}'
        with what_happens(one):
            began = time.monotonic()
            try:
                status = job.wait(within_s)
                took = time.monotonic() - began
                pools.wait_until(lambda: not one.pool.pids('tide-worker'), 'the worker ends, too', ENDS_WITHIN_S)
            finally:
                one.end_by_force()  # a device that somebody uses cannot be made again
        errors = [line for line in job.err().splitlines() if line.startswith('tidepool: error: ')]
        assert status != 0 and errors, f'status {status}\n{job.out()}\n{job.err()}'
        assert re.search(also_said, job.err()), f'not a word of {also_said}: {job.err()}'
        result = one.run([pools.job_program('saxpy_drv')])
        assert result.status == 0, f'afterwards: {result}'
    return f'ended after {took:.1f} s: {errors[0][len("tidepool: error: "):]}'


def worker_killed(transport):
    @contextlib.contextmanager
    def kill(one):
        os.kill(one.pool.pids('tide-worker')[0], signal.SIGKILL)
        yield
    return ends_clearly(transport, kill)


def wire_cut(transport):
    @contextlib.contextmanager
    def cut(one):
        with wire.cuttable() as cut_now:
            cut_now()
            yield
    said = r'rxe\d port 1 is down' if transport.name == 'verbs' else ''
    return ends_clearly(transport, cut, said, HELD_S + 2 * ENDS_WITHIN_S)


def fastest(_):
    """What `tide job` names is what was measured to be the faster."""
    both = Transport('fastest', {'UCX_TLS': 'tcp'})
    both.client['UCX_NET_DEVICES'] = wire.DEVICES[wire.CLIENT]
    with OnePool(both) as one:
        job = one.pool.start('--name', 'race', '--', *copies(8, 1000), env=one.env(TIDE_LOG='info'))
        try:
            def line():
                assert job.running(), f'ended by itself: {job.err()}'
                return re.search(r'^0 .* (verbs|ucx) +\d+$', one.pool.tide('job', 'race').out, re.MULTILINE)
            named = pools.wait_until(line, '`tide job` names the transport', pools.PATIENCE_S).group(1)
        finally:
            one.end_by_force()
            job.wait(ENDS_WITHIN_S)
        log = job.err()
    chosen_one = re.search(r'(\w+) is chosen', log)
    assert chosen_one and chosen_one.group(1) == named, f'tide job says {named}: {log}'
    measured = re.findall(r'(\w+): a null round trip takes ([\d.]+) us, the median of (\d+)', log)
    assert named in {name for name, _, _ in measured}, log
    return f'{named}; ' + ', '.join(f'{name} {us} us, median of {rounds}' for name, us, rounds in measured)


def null_call(_):
    """Beside RC's own ping-pong, in turns. Printed, not judged: the times are those of an emulated processor."""
    path = os.path.join(pools.BUILD, 'tools', 'bench_transport', 'tide-bench-transport')
    done = subprocess.run([path, '--json', '--only', 'verbs'], env={**os.environ, 'TIDE_POLL': 'busy'}, text=True,
                          capture_output=True, timeout=pools.PATIENCE_S)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 2 and all(row['value'] > 0 and row['floor'] > 0 for row in rows), rows
    return '; '.join(f'{row["name"].split(" / ")[1]}: {row["ratio"]:.2f} times, of minima {row["ratio_of_minima"]:.2f}'
                     for row in rows)


def told_in_one_line(result, *words):
    """The job's own words on why it cannot open its GPU: one line that has all these."""
    lines = [line for line in result.err.splitlines() if line.startswith('tidepool: error: ')]
    assert result.status == 1 and len(lines) == 1 and all(word in lines[0] for word in words), repr(result)
    return lines[0][len('tidepool: error: '):]


def little_memlock(transport):
    with OnePool(transport) as one:
        said = told_in_one_line(one.run(train(), *LITTLE_MEMLOCK), 'memory', 'MiB', 'may lock 64 KiB', 'ulimit -l')
    with OnePool(transport, *LITTLE_MEMLOCK) as one:
        worker_said = told_in_one_line(one.run(train()))
    return f'client: {said}; worker: {worker_said}'


def little_memlock_by_default(_):
    """Where nobody asked for RDMA, TCP must do."""
    wanted = reference('training')
    free = Transport('ucx', {})
    with OnePool(free) as one:
        before = wire.Sent()
        result = one.run(train(), *LITTLE_MEMLOCK)
        sent = wire.Sent().since(before)
    assert result.status == 0 and result.out == wanted, repr(result)
    assert 'ulimit -l' in result.err, repr(result)
    return f'over TCP ({sent}): {result.err.strip().splitlines()[0]}'


def ucx_without_rdma(_):
    """A transport that this machine has no device for."""
    with OnePool(Transport('ucx', {'UCX_TLS': 'rc_mlx5'})) as one:
        return told_in_one_line(one.run(train()), 'UCX', 'rc_mlx5', 'rdma-bench')


# rdma-bench ----------------------------------------------------------------------------------------------------------

BENCH = os.path.join(pools.BUILD, 'tools', 'rdma_bench', 'rdma-bench')
BENCH_PORT, PINGPONG_PORT = 7471, 18515


def listens(port):
    """Somebody does; a program that starts may take seconds here until it does."""
    for name in ('/proc/net/tcp', '/proc/net/tcp6'):
        with open(name) as file:
            if any(words[1].endswith(f':{port:04X}') and words[3] == '0A' for words in map(str.split, file)):
                return True
    return False


def bench(*arguments, prefix=(), env=None):
    return subprocess.run([*prefix, BENCH, *arguments], text=True, capture_output=True, timeout=pools.PATIENCE_S,
                          env={**os.environ, **(env or {})})


def devices(_):
    done = bench('devices', '--json')
    assert done.returncode == 0, done.stderr
    ports = {device['name']: device['ports'][0] for device in json.loads(done.stdout)['rdma']}
    assert set(ports) == set(wire.DEVICES), ports
    assert all(port['state'] == 'active' for port in ports.values()), ports
    return ', '.join(f'{name} {port["state"]}, MTU {port["mtu"]}' for name, port in ports.items())


@contextlib.contextmanager
def bench_server(env):
    with tempfile.TemporaryFile('w+') as out:
        server = subprocess.Popen([BENCH, 'serve', '--listen', wire.WORKER_ADDRESS, '--timeout', '30000'],
                                  env={**os.environ, **env}, stdout=out, stderr=out)
        try:
            pools.wait_until(lambda: listens(BENCH_PORT), 'rdma-bench listens', pools.PATIENCE_S)
            yield
        finally:
            server.kill()
            server.wait()


def bench_path(path, prefix=()):
    """One path's part of rdma-bench's report, and what went over the wire meanwhile."""
    # UCX drops every datagram on software RDMA unless it is told not to look at their destination.
    env = {'UCX_UD_VERBS_ETH_DGID_CHECK': 'n'}
    before = wire.Sent()
    with bench_server({**env, **Transport.device(wire.WORKER)}):
        done = bench(wire.WORKER_ADDRESS, '--json', '--paths', path, '--duration', '50', '--size-max', '64KiB',
                     '--timeout', '30000', prefix=prefix, env={**env, **Transport.device(wire.CLIENT)})
    assert done.stdout.startswith('{'), f'status {done.returncode}: {done.stderr}'
    report = json.loads(done.stdout)
    return report, wire.Sent().since(before)


def bench_measures(path):
    report, sent = bench_path(path)
    row = report['paths'][0]
    assert row['state'] == 'measured' and not report['failure'], row
    routes = row['here']['route'], row['there']['route']
    assert wire.CLIENT in routes[0] and wire.WORKER in routes[1], routes
    sizes = {figure['bytes'] for figure in report['rows']}
    assert max(sizes) == 64 << 10, sizes
    # Two messages of the largest size at least, in each direction.
    sent.must_have_carried(2 * max(sizes))
    latency = [figure['us']['p50'] for figure in report['rows'] if figure['test'] == 'latency']
    return f'{routes[0]} to {routes[1]}, {len(report["rows"])} figures, p50 {latency[0]:.0f} us ({sent})'


def bench_rails(_):
    """Both devices at once: one queue pair each, in opposite directions over the one wire."""
    before = wire.Sent()
    with bench_server({}):
        done = bench(wire.WORKER_ADDRESS, '--json', '--paths', 'verbs', '--device', f'{wire.CLIENT}={wire.WORKER},'
                     f'{wire.WORKER}={wire.CLIENT}', '--tests', 'bandwidth', '--sizes', '64KiB', '--duration', '100',
                     '--timeout', '30000')
    sent = wire.Sent().since(before)
    assert done.stdout.startswith('{'), f'status {done.returncode}: {done.stderr}'
    report = json.loads(done.stdout)
    states = {path['name']: path['state'] for path in report['paths']}
    assert [*states.values()] == ['measured'] * 3, report['paths']
    sent.must_have_carried(64 << 10)
    rows = {row['path']: row for row in report['rows']}
    together = rows[f'verbs@{wire.CLIENT}:1+{wire.WORKER}:1']
    assert together['limit_of'] == 'the sum of each alone', together
    figures = ', '.join(f'{name} {row["gbytes_per_s"] * 1e3:.1f} MB/s' for name, row in rows.items())
    return f'{figures} ({sent})'


def bench_with_little_memlock(_):
    said = []
    for path in ('verbs', 'ucx-rc'):
        report, _ = bench_path(path, prefix=LITTLE_MEMLOCK)
        why = report['paths'][0]['why']
        assert report['paths'][0]['state'] == 'failed' and 'ulimit -l' in why, report['paths']
        said.append(f'{path}: {why}')
    return '; '.join(said)


def pattern_over_verbs(_):
    """Another program's own check of what arrives, byte by byte."""
    server = subprocess.Popen(['ibv_rc_pingpong', '-g', '1', '-d', wire.WORKER, '-c', '-n', '200'],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        pools.wait_until(lambda: listens(PINGPONG_PORT), 'ibv_rc_pingpong listens', pools.PATIENCE_S)
        done = subprocess.run(['ibv_rc_pingpong', '-g', '1', '-d', wire.CLIENT, '-c', '-n', '200', wire.WORKER_ADDRESS],
                              capture_output=True, text=True, timeout=60)
    finally:
        server.kill()
        server.wait()
    assert done.returncode == 0 and 'invalid' not in done.stdout + done.stderr, done
    return 'ibv_rc_pingpong, 200 times 4 KiB there and back, as they were sent'


# The table -----------------------------------------------------------------------------------------------------------

def cases(transports):
    """[(name, function, its argument)]"""
    table = [
        ('devices', devices, None),
        ('bytes arrive', pattern_over_verbs, None),
        ('rdma-bench verbs', bench_measures, 'verbs'),
        ('rdma-bench ucx-rc', bench_measures, 'ucx-rc'),
        ('rdma-bench two rails', bench_rails, None),
        ('rdma-bench memlock', bench_with_little_memlock, None),
        ('ucx memlock by default', little_memlock_by_default, None),
        ('ucx without RDMA', ucx_without_rdma, None),
        ('fastest', fastest, None),
        ('null call on verbs', null_call, None),
    ]
    for transport in transports:
        table += [(f'{transport.name} {name}', function, transport) for name, function in (
            ('job', same_output),
            ('job on a bad wire', same_output_on_a_bad_wire),
            ('page-locked', page_locked),
            ('worker killed', worker_killed),
            ('wire cut', wire_cut),
            ('memlock', little_memlock),
        )]
    return table


def run(name, function, argument):
    """ok or FAILED, said in one line."""
    began = time.monotonic()
    try:
        outcome, said = 'ok', function(argument)
    except (AssertionError, subprocess.SubprocessError, OSError, LookupError, ValueError) as failure:
        outcome, said = 'FAILED', f'{type(failure).__name__}: {failure}'
    print(f'{outcome:6} {name:24} {time.monotonic() - began:5.1f} s  {said}', flush=True)
    return outcome


def chosen(options):
    table = cases([TRANSPORTS[name] for name in options.transports.split(',')])
    wanted = [case for case in table if not options.only or any(word in case[0] for word in options.only)]
    left_out = [case for case in wanted if any(word in case[0] for word in options.without)]
    for name, *_ in left_out:
        print(f'left out: {name}', flush=True)
    return [case for case in wanted if case not in left_out]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--transports', required=True)
    parser.add_argument('--only', nargs='*', default=[])
    parser.add_argument('--without', nargs='*', default=[])
    outcomes = [run(*case) for case in chosen(parser.parse_args())]
    print(f'rdma: {outcomes.count("ok")} ok, {outcomes.count("FAILED")} failed', flush=True)
    return 0 if outcomes.count('ok') > 0 and 'FAILED' not in outcomes else 1


if __name__ == '__main__':
    sys.exit(main())
