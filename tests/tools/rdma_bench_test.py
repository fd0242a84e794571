"""rdma-bench with itself on loopback: the shape of what it says, and that nothing that goes wrong makes it hang.

No figure's size is judged here: the machine is shared. tools/rdma_bench/compare.py compares figures."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

BENCH = os.environ.get('RDMA_BENCH') or 'rdma-bench'
# Long, because a side may get no core for many seconds while others use the machine.
PATIENCE_S = 180
QUICK = ('--duration', 5, '--size-max', '64KiB', '--timeout', 60000)
VERSION = 2  # kProtocolVersion
HEAD = struct.Struct('<4sHHI')  # magic, version, word, bytes


def command(*words):
    return [str(word) for word in words]


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='rdma-bench-')
        self.addCleanup(shutil.rmtree, self.folder, True)

    def serve(self, *words, before=()):
        """A server on a port of the system's choice."""
        server = subprocess.Popen(command(*before, BENCH, 'serve', '--port', 0, *words), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, server)
        said = server.stdout.readline()
        match = re.fullmatch(r'rdma-bench: listening on 127\.0\.0\.1 port (\d+)\n', said)
        self.assertTrue(match, said)
        server.port = int(match.group(1))
        return server

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def run_bench(self, *words, before=()):
        return subprocess.run(command(*before, BENCH, *words), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE_S, check=False)

    def error(self, status, text, *words):
        done = self.run_bench(*words)
        self.assertEqual((done.returncode, done.stderr), (status, f'rdma-bench: {text}\n'), words)
        return done

    def test_what_the_environment_asks_of_ucx_is_named(self):
        server = self.serve()
        done = self.run_bench('127.0.0.1', '--port', server.port, '--paths', 'ucx', '--tests', 'latency', '--sizes', 8,
                              '--duration', 5, '--timeout', 60000, before=('env', 'UCX_TLS=self'))
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn('UCX_TLS=self: without, it takes what it finds', done.stdout)

    def report(self, server, *words, before=()):
        done = self.run_bench('127.0.0.1', '--port', server.port, '--json', *words, before=before)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        report = json.loads(done.stdout)
        if report['failure']:  # the reason may stand in the server's terminal
            self.run_bench('127.0.0.1', '--port', server.port, '--paths', 'tcp', '--tests', 'rate', '--duration', 1)
            server.kill()
            self.fail(f"{report['failure']}; paths: {report['paths']}; the server: {server.communicate()}")
        return report


class Figures(Bench):
    def test_every_path_is_measured_or_says_why_not(self):
        report = self.report(self.serve(), *QUICK)
        states = {path['name']: path['state'] for path in report['paths']}
        self.assertEqual(states['tcp'], 'measured')
        self.assertEqual(states['memory'], 'measured')
        self.assertEqual(states['ucx-tcp'], 'measured')
        self.assertEqual([path for path in report['paths'] if path['state'] == 'failed'], [])
        for path in report['paths']:
            self.assertEqual(path['why'] == '', path['state'] == 'measured', path)
            if path['state'] == 'measured':
                self.check_rows(report, path['name'])

    def check_rows(self, report, path):
        rows = [row for row in report['rows'] if row['path'] == path]
        sizes = {}
        for row in rows:
            sizes.setdefault(row['test'], []).append(row['bytes'])
        self.assertEqual(sizes.get('latency'), [8, 4096])
        self.assertEqual(sizes.get('rate'), [8])
        for test in ('bandwidth', 'bandwidth-back', 'bandwidth-both'):
            self.assertEqual(sizes.get(test), [4096, 65536], (path, test))
        for row in rows:
            us = row['us']
            if row['test'] == 'latency':
                self.assertGreater(us['count'], 0)
                self.assertEqual(sum(bucket['count'] for bucket in us['histogram']), us['count'])
                order = [us[name] for name in ('min', 'p50', 'p99', 'p999', 'max')]
                self.assertEqual(order, sorted(order), row)
                self.assertGreater(us['min'], 0)
                self.assertAlmostEqual(us['jitter'], us['p999'] - us['p50'], delta=1e-3 * us['p999'])
            elif row['test'] != 'registration':
                self.assertGreater(row['messages_per_s'], 0, row)
                self.assertAlmostEqual(row['gbytes_per_s'] / (row['messages_per_s'] * row['bytes'] / 1e9), 1, places=3)

    def test_the_path_that_was_asked_for_is_the_one_that_is_used(self):
        report = self.report(self.serve(), *QUICK, '--tests', 'latency', '--paths', 'ucx-tcp,ucx-posix')
        routes = {path['name']: path['here']['route'] for path in report['paths']}
        self.assertEqual(routes, {'ucx-tcp': 'tcp/lo', 'ucx-posix': 'posix/memory'})
        self.assertEqual({row['test'] for row in report['rows']}, {'latency'})

    def test_what_it_means_for_jobs_follows_the_stated_model(self):
        report = self.report(self.serve(), *QUICK, '--paths', 'memory')
        jobs, rows = report['jobs'], {(row['test'], row['bytes']): row for row in report['rows']}
        self.assertEqual(jobs['path'], 'memory')
        self.assertIn('round trips x round trip', jobs['model'])
        self.assertAlmostEqual(jobs['round_trip_us'], 2 * rows['latency', 8]['us']['p50'], places=3)
        self.assertEqual(jobs['to_gbytes_per_s'], rows['bandwidth', 65536]['gbytes_per_s'])

    def test_people_and_the_html_file_get_the_same(self):
        server, path = self.serve(), os.path.join(self.folder, 'report.html')
        done = self.run_bench('127.0.0.1', '--port', server.port, *QUICK, '--paths', 'tcp,memory', '--html', path)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        for text in ('plain TCP sockets (tcp)\n', '\n  latency ', 'p99.9', 'GB/s █', 'for jobs'):
            self.assertIn(text, done.stdout)
        with open(path, encoding='utf-8') as file:
            page = file.read()
        self.assertIn('<svg', page)
        self.assertIn('prefers-color-scheme:dark', page)
        self.assertNotRegex(page, r'src=|href=|https?://')  # needs nothing else

    def test_a_second_client_is_told_to_wait_and_the_next_one_is_served(self):
        server = self.serve()
        first = subprocess.Popen(command(BENCH, '127.0.0.1', '--port', server.port, '--paths', 'tcp', '--tests',
                                         'latency', '--duration', 60000), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, first)
        self.assertIn('measuring with', server.stdout.readline())
        self.error(1, '127.0.0.1: it is measuring with another client; try again later', '127.0.0.1', '--port',
                   server.port)
        first.kill()
        first.wait()
        done = self.run_bench('127.0.0.1', '--port', server.port, *QUICK, '--paths', 'tcp', '--tests', 'latency')
        self.assertEqual(done.stderr, '')
        self.assertIn('plain TCP sockets', done.stdout)


class Machines(Bench):
    def devices(self, *before):
        done = self.run_bench('devices', '--json', before=before)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        return json.loads(done.stdout)

    def test_what_the_machine_has(self):
        machine = self.devices()
        self.assertEqual(machine['cpus'], os.cpu_count())
        self.assertEqual(machine['name'], os.uname().nodename)
        self.assertIn('127.0.0.1', [each['address'] for each in machine['interfaces']])
        self.assertIn('tcp', [each['name'] for each in machine['ucx_transports']])
        there = '/sys/class/infiniband'
        self.assertEqual(len(machine['rdma']), len(os.listdir(there)) if os.path.isdir(there) else 0)
        self.assertIn('memlock', self.run_bench('devices').stdout)

    def test_memlock_of_64_kib_is_found(self):
        limited = ['prlimit', '--memlock=65536:65536']
        if os.geteuid() == 0:
            limited += ['setpriv', '--bounding-set', '-ipc_lock', '--inh-caps', '-ipc_lock']
        for tool in ('prlimit', 'setpriv'):
            if not shutil.which(tool):
                self.skipTest(f'no {tool}')
        machine = self.devices(*limited)
        self.assertEqual((machine['memlock_bytes'], machine['memlock_exempt']), (65536, False))
        report = self.report(self.serve(before=limited), *QUICK, before=limited)
        found = [finding for finding in report['findings'] if 'may lock only 64 KiB' in finding['what']]
        self.assertEqual(len(found), 1, report['findings'])
        self.assertIn('ulimit -l unlimited', found[0]['mend'])


class TwoMachines(Bench):
    """Two network namespaces; the server's has another boot id, by which machines are told apart."""

    def ip(self, *words):
        return subprocess.run(command('ip', *words), capture_output=True, text=True, check=False)

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not shutil.which('ip') or not shutil.which('unshare'):
            self.skipTest('needs root, ip and unshare')
        self.here, self.there = f'rdmab-{os.getpid()}-a', f'rdmab-{os.getpid()}-b'
        for name in (self.here, self.there):
            if self.ip('netns', 'add', name).returncode != 0:
                self.skipTest('no network namespaces')
            self.addCleanup(self.ip, 'netns', 'del', name)
        self.join('rb0', 'rb1', 0, 9000, 1500)

    def join(self, mine, theirs, number, mtu, mtu_there):
        """A wire, with addresses of a network of its own."""
        if self.ip('link', 'add', mine, 'netns', self.here, 'type', 'veth', 'peer', 'name', theirs, 'netns',
                   self.there).returncode != 0:
            self.skipTest('no veth')
        ends = ((self.here, mine, f'10.99.{number}.1', mtu), (self.there, theirs, f'10.99.{number}.2', mtu_there))
        for name, device, address, mtu in ends:
            self.ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', device)
            self.ip('-n', name, 'link', 'set', 'lo', 'up')
            self.ip('-n', name, 'link', 'set', device, 'mtu', mtu, 'up')
        for name, device, _, _ in ends:  # the kernel takes up to a second; UCX does not use it before
            end = time.monotonic() + PATIENCE_S
            while ' UP ' not in self.ip('-n', name, '-br', 'link', 'show', device).stdout:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)

    def serve_there(self):
        boot_id = os.path.join(self.folder, 'boot_id')
        with open(boot_id, 'w', encoding='ascii') as file:
            file.write('11111111-2222-3333-4444-555555555555\n')
        script = f'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec {BENCH} serve --listen 10.99.0.2'
        server = subprocess.Popen(command('ip', 'netns', 'exec', self.there, 'unshare', '-m', 'sh', '-c', script),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, server)
        if 'listening' not in server.stdout.readline():
            self.skipTest(server.communicate()[1])

    def run_here(self, *words):
        return self.run_bench('10.99.0.2', *QUICK, *words, before=('ip', 'netns', 'exec', self.here))

    def sent(self, name, device):
        shown = self.ip('-n', name, '-s', '-j', 'link', 'show', device).stdout
        return json.loads(shown)[0]['stats64']['tx']['bytes']

    def test_two_rails_are_measured_alone_and_together(self):
        self.join('rb2', 'rb3', 1, 1500, 1500)
        self.serve_there()
        done = self.run_here('--paths', 'tcp,ucx-tcp', '--tests', 'latency,bandwidth', '--sizes', '64KiB', '--json')
        report = json.loads(done.stdout)
        self.assertEqual(report['failure'], '')
        for kind in ('tcp', 'ucx-tcp'):
            names = [f'{kind}@rb0', f'{kind}@rb2', f'{kind}@rb0+rb2']
            paths = {path['name']: path for path in report['paths'] if path['name'].startswith(kind)}
            self.assertEqual([*paths], [kind, *names])
            both = paths[names[2]]
            self.assertEqual((both['devices'], both['devices_there']), (['rb0', 'rb2'], ['rb1', 'rb3']))
            self.assertEqual({path['state'] for path in paths.values()}, {'measured'}, paths)
            rows = {row['path']: row for row in report['rows'] if row['test'] == 'bandwidth'}
            alone = [rows[name]['gbytes_per_s'] for name in names[:2]]
            together = rows[names[2]]
            self.assertAlmostEqual(together['limit'] / sum(alone), 1, places=3)
            self.assertEqual(together['limit_of'], 'the sum of each alone')
            whats = [finding['what'] for finding in report['findings']]
            self.assertEqual(len([what for what in whats if what.startswith(names[2] + ': ')]), 1, whats)
        # Latency was asked for, but not of rails that nobody named.
        self.assertEqual({row['path'] for row in report['rows'] if row['test'] == 'latency'}, {'tcp', 'ucx-tcp'})

    def test_bytes_go_over_the_devices_that_were_named(self):
        self.join('rb2', 'rb3', 1, 1500, 1500)
        self.serve_there()
        for named, carrying, idle in (('rb2', ['rb2'], 'rb0'), ('rb2=rb3', ['rb2'], 'rb0'),
                                      ('rb0,rb2', ['rb0', 'rb2'], None)):
            for path in ('tcp', 'ucx-tcp'):
                before = {device: self.sent(self.here, device) for device in ('rb0', 'rb2')}
                done = self.run_here('--paths', path, '--device', named, '--tests', 'bandwidth', '--sizes', '256KiB',
                                     '--json')
                sent = {device: self.sent(self.here, device) - before[device] for device in before}
                report = json.loads(done.stdout)
                last = report['paths'][-1]
                self.assertEqual((last['name'], last['state']), (f'{path}@{"+".join(carrying)}', 'measured'), last)
                for device in carrying:
                    self.assertGreater(sent[device], 256 << 10, (named, path, sent))
                if idle:
                    self.assertLess(sent[idle], 128 << 10, (named, path, sent))  # the control connection's
        done = self.run_here('--paths', 'tcp', '--device', 'rb2=rb9')
        self.assertRegex(done.stderr,
                         "^rdma-bench: --device: .* has no 'rb9' of the kind of rb2; it has .*rb1, rb3.*\n$")

    def test_only_the_network_joins_them_and_an_mtu_mismatch_is_found(self):
        self.serve_there()
        done = self.run_here('--tests', 'latency,bandwidth', '--json')
        self.assertEqual(done.returncode, 1, done.stderr)
        report = json.loads(done.stdout)
        states = {path['name']: path['state'] for path in report['paths']}
        self.assertEqual([states[name] for name in ('tcp', 'ucx-tcp', 'ucx')], ['measured'] * 3,
                         report['paths'])
        self.assertEqual([states[name] for name in ('memory', 'ucx-posix')], ['absent'] * 2)
        whats = [finding['what'] for finding in report['findings'] if finding['level'] == 'WRONG']
        self.assertIn('MTU mismatch: rb0 here has 9000, rb1 there 1500', whats)


class Wrong(Bench):
    def test_words(self):
        self.error(2, "expects HOST, 'serve' or 'devices'; see rdma-bench --help")
        self.error(2, 'option --frob is not understood; see rdma-bench --help', '--frob')
        self.error(2, "--paths: there is no 'carrier-pigeon'; there are: tcp, memory, ucx-tcp, ucx-posix, ucx-sysv, "
                   'ucx-cma, verbs, ucx-rc, ucx-ud, ucx-rc-mlx5, ucx-dc-mlx5, ucx; see rdma-bench --help', 'h',
                   '--paths', 'tcp,carrier-pigeon')
        self.error(2, "--sizes must be sizes from 8B to 256MiB, such as 8,64KiB, not '4'; see rdma-bench --help", 'h',
                   '--sizes', '64KiB,4')
        self.error(2, "--device must be NAME[:PORT] or NAME[:PORT]=NAME[:PORT], not 'eth0='; see rdma-bench --help",
                   'h', '--device', 'eth0=')
        self.assertRegex(self.run_bench('h', '--device', 'no-such0').stderr, (
            "^rdma-bench: --device: there is no usable 'no-such0' here; there are: (no active RDMA port|RDMA .*); "
            'interfaces .*lo.*\n$'))
        self.error(2, "--port must be a number from 1 to 65535, not '0'; see rdma-bench --help", 'h', '--port', 0)
        self.error(2, '--size-max must be from 8B to 256MiB; see rdma-bench --help', 'h', '--size-max', '1GiB')
        self.error(2, "--html goes with HOST, not with 'serve'; see rdma-bench --help", 'serve', '--html', 'x')
        self.error(1, f'{self.folder}/none: No such file or directory', 'h', '--trace', f'{self.folder}/none')
        self.assertIn('bandwidth-both', self.run_bench('h', '--tests', 'list').stdout)

    def test_no_such_host(self):
        done = self.run_bench('no-such-host.invalid', '--timeout', 5000)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^rdma-bench: (there is no host|no name server answered for) 'no-such-host.inv")

    def test_a_closed_port(self):
        with socket.create_server(('127.0.0.1', 0)) as taken:
            port = taken.getsockname()[1]
        text = (f'no rdma-bench answers at 127.0.0.1 port {port} (Connection refused); run `rdma-bench serve --listen '
                'ADDRESS` there, with an ADDRESS of it that this machine reaches')
        done = self.error(1, text, '127.0.0.1', '--port', port, '--json')
        self.assertEqual(json.loads(done.stdout), {'failure': text})

    def answer_with(self, data):
        """A port where something answers that."""
        listener = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(listener.close)

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(data)
                try:
                    connection.recv(4096)  # until the client goes
                except ConnectionResetError:
                    pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.addCleanup(thread.join, PATIENCE_S)
        return listener.getsockname()[1]

    def test_another_version(self):
        port = self.answer_with(HEAD.pack(b'RDMB', 999, 2, 0))
        self.error(1, '127.0.0.1: its rdma-bench speaks version 999 of the protocol, this one version 2; install the '
                   'same Tidepool on both machines', '127.0.0.1', '--port', port)
        server = self.serve()
        with socket.create_connection(('127.0.0.1', server.port), PATIENCE_S) as client:
            client.sendall(HEAD.pack(b'RDMB', 7, 1, 0))
            answer = client.makefile('rb').read()
        magic, version, word, count = HEAD.unpack(answer[:12])
        self.assertEqual((magic, version, word, count), (b'RDMB', VERSION, 12, len(answer) - 12))
        self.assertIn(b'speaks version 7 of the protocol, this one version 2', answer)

    def test_something_else_on_the_port(self):
        port = self.answer_with(b'HTTP/1.1 400 Bad Request\r\n\r\n')
        self.error(1, '127.0.0.1: what answers on that port is not rdma-bench', '127.0.0.1', '--port', port)

    def test_nobody_says_anything(self):
        port = self.answer_with(b'')
        self.error(1, '127.0.0.1: said nothing for 300 ms (--timeout); is it stopped, or is another program on that '
                   'port?', '127.0.0.1', '--port', port, '--timeout', 300)

    def test_nonsense_does_not_end_the_server(self):
        server = self.serve('--timeout', 500)
        welcome = HEAD.pack(b'RDMB', VERSION, 1, 24) + struct.pack('<QQQ', 1 << 60, 0, 0)  # a name of 2^60 bytes
        huge, early = HEAD.pack(b'RDMB', VERSION, 1, 1 << 31), HEAD.pack(b'RDMB', VERSION, 6, 0)
        for data in (b'', b'GET / HTTP/1.1\r\n\r\n', huge, early, welcome):
            with socket.create_connection(('127.0.0.1', server.port), PATIENCE_S) as client:
                client.sendall(data)
                client.settimeout(PATIENCE_S)
                try:
                    while client.recv(4096):
                        pass
                except ConnectionResetError:  # it did not read all of the nonsense
                    pass
        self.report(server, *QUICK, '--paths', 'tcp', '--tests', 'latency')


class Death(Bench):
    """The other side dies, or stops, in the middle of a copy."""

    def start(self, server, path, test, *words):
        client = subprocess.Popen(command(BENCH, '127.0.0.1', '--port', server.port, '--paths', path, '--tests', test,
                                          '--size-max', '1MiB', '--duration', 60000, *words), stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, client)
        line = ' '
        while f'({path})' not in line:
            self.assertTrue(line, 'ended at once')
            line = client.stdout.readline()
        time.sleep(0.2)
        return client

    def test_the_server_is_killed(self):
        for path, test in (('tcp', 'bandwidth'), ('memory', 'bandwidth-both'), ('ucx-tcp', 'bandwidth'),
                           ('ucx-tcp', 'bandwidth-back'), ('ucx-posix', 'latency'), ('ucx', 'bandwidth')):
            with self.subTest(path=path, test=test):
                server = self.serve()
                client = self.start(server, path, test)
                server.kill()
                _, errors = client.communicate(timeout=PATIENCE_S)
                self.assertEqual((client.returncode, errors), (1, (
                    f'rdma-bench: 127.0.0.1: its rdma-bench is gone in the middle of {test} over {path}: it ended, was '
                    'killed, or the network broke; look at its terminal, then run both again\n')))

    def test_the_client_is_killed_and_the_next_one_is_served(self):
        server = self.serve()
        for path, test in (('tcp', 'bandwidth'), ('ucx-tcp', 'bandwidth-both'), ('memory', 'latency')):
            client = self.start(server, path, test)
            client.kill()
            client.wait()
            self.report(server, *QUICK, '--paths', 'tcp', '--tests', 'latency')
    
    def test_the_server_stops(self):
        server = self.serve()
        client = self.start(server, 'tcp', 'latency', '--timeout', 500)
        children = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(server.pid)], capture_output=True, text=True,
                                  check=True).stdout.split()
        for pid in children:
            os.kill(int(pid), signal.SIGSTOP)
        output, errors = client.communicate(timeout=PATIENCE_S)
        for pid in children:
            os.kill(int(pid), signal.SIGCONT)
        self.assertEqual(client.returncode, 1)
        self.assertRegex(output + errors, r'(nothing moved|said nothing) for \d+ ms \(--timeout\)')


if __name__ == '__main__':
    unittest.main(verbosity=2)
