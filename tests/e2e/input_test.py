"""Bad input gets a clear error with the next step."""

import os
import random
import re
import socket
import stat
import struct
import subprocess
import sys
import time
import unittest

from pool import BUILD, SOURCE, PoolTest, agent_path, job_program, scheduler_address, train, wait_until


class Input(PoolTest):
    def expect_error(self, result, status, *patterns):
        self.assertEqual(result.status, status, repr(result))
        for pattern in patterns:
            self.assertRegex(result.err, pattern)
        self.assertNotIn('Traceback', result.err)
        self.assertLess(len(result.err.split('\n')), 12, 'an error is a few lines: ' + result.err)

    def test_no_pool(self):
        self.expect_error(self.pool.run('-g', 1, '--', 'true'), 125, r'tide up')
        for words in (['status'], ['jobs'], ['gpus'], ['job', 'x'], ['resize', 'x', '--gpus', '1']):
            result = self.pool.tide(*words)
            self.assertNotEqual(result.status, 0, words)
            self.assertRegex(result.err, r'tide up', words)

    def test_more_gpus_than_there_are(self):
        self.pool.up(gpus=2)
        result = self.pool.run('-g', 1, '--min', 3, '--', 'true', seconds=20)
        self.expect_error(result, 125, r'min|3')
        result = self.pool.run('-g', 1000, '--', 'true', seconds=20)
        self.expect_error(result, 125, r'64|1000')
        result = self.pool.run('-g', 5, '--min', 5, '--', 'true', seconds=20)
        self.expect_error(result, 125, r'5', r'2')

    def test_a_command_that_does_not_exist(self):
        self.pool.up(gpus=1)
        result = self.pool.run('-g', 1, '--', './no-such-command')
        self.assertIn(result.status, (126, 127), repr(result))
        self.assertIn('no-such-command', result.err)
        result = self.pool.run('-g', 1)
        self.assertNotEqual(result.status, 0)
        self.assertRegex(result.err, r'(?i)command')

    def test_the_exit_status_is_the_command_s(self):
        self.pool.up(gpus=1)
        self.assertEqual(self.pool.run('-g', 1, '--', 'sh', '-c', 'exit 7').status, 7)
        self.assertEqual(self.pool.run('-g', 1, '--', 'sh', '-c', 'kill -TERM $$').status, 128 + 15)
        self.assertEqual(self.pool.run('-g', 1, '--', 'sh', '-c', 'echo out; echo err >&2').out, 'out\n')

    def test_a_second_up(self):
        self.pool.up(gpus=1)
        result = self.pool.tide('up', '--gpus', 1)
        self.assertRegex(result.both, r'(?i)already|runs')
        self.assertRegex(result.both, r'tide (down|status|run)')
        self.expect_ok(self.pool.run('-g', 1, '--', 'true'))
        self.expect_nothing_left()
        self.assertEqual(self.pool.tide('down').status in (0, 1), True)

    def test_wrong_words(self):
        self.pool.up(gpus=1)
        for line in ('no-such-subcommand', 'run --no-such-option -- true', 'run -g many -- true', 'run -g 0 -- true',
                     'run -g -1 -- true', 'resize', 'resize nobody --gpus 1', 'job nobody', 'kill nobody', 'why nobody',
                     'up --gpus 0', 'up --gpus x', 'migrate nobody:0 nowhere/0'):
            words = line.split()
            result = self.pool.tide(*words, seconds=20)
            self.assertNotIn(result.status, (0, 134, 139), (words, repr(result)))
            self.assertNotEqual(result.err.strip(), '', words)

    def test_resize_to_what_is_not_there(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 2, '--name', 'it', '--', *train('--steps', 40, '--step-ms', 50))
        wait_until(lambda: job.steps() > 1, 'it trains')
        for gpus in (0, 3, 1000, 'x'):
            result = self.pool.tide('resize', 'it', '--gpus', gpus, seconds=30)
            self.assertNotEqual(result.status, 0, (gpus, repr(result)))
            self.assertNotEqual(result.err.strip(), '')
        self.assertNotEqual(self.pool.tide('migrate', 'it:0', 'nowhere/9').status, 0)
        self.assertNotEqual(self.pool.tide('migrate', 'it:9', 'nowhere/0').status, 0)
        self.assertEqual(job.wait(), 0, job.err())

    def test_help(self):
        for word in ('', *'up down run env status jobs gpus job why resize migrate kill'.split()):
            result = self.pool.tide(*word.split(), '--help')
            self.assertEqual(result.status, 0, (word, repr(result)))
            self.assertRegex(result.out, r'(?i)usage')

    def test_ucx_that_reaches_nobody(self):
        self.pool.up(gpus=1)
        for wish in ('UCX_NET_DEVICES=no-such-device', 'UCX_NET_DEVICES=', 'UCX_TLS=self', 'UCX_TLS=rc_x'):
            result = self.pool.run('-g', 1, '--', 'env', 'TIDE_TRANSPORT=ucx', wish, job_program('saxpy_drv'))
            self.expect_error(result, 1, r'UCX: this machine has no device .*rdma-bench devices')

    def test_one_file_for_scheduler_and_agents(self):
        path = os.path.join(self.pool.home, 'pool.toml')
        start = [agent_path(self.pool), '--config', path, '--name', 'gpu1']

        def write(devices):
            with open(path, 'w', encoding='ascii') as file:
                file.write('[pool]\nlisten = "127.0.0.1:0"\n[[server]]\nname = "gpu1"\n'
                           f'directory = "{self.pool.home}/gpu1"\nsoftgpu_devices = {devices}\n')
        write(65)
        wrong = f"{path}:6:19: '65' is no number from 1 to 64; write softgpu_devices = 1\n"
        self.assertEqual(self.pool.tide('config', 'check', path).err, wrong)
        refused = subprocess.run(start, env=self.pool.env, capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(refused.returncode, 2)
        self.assertIn(wrong, refused.stderr)
        write(3)
        self.assertEqual(self.pool.tide('config', 'check', path).out, f'{path}: ok\n')
        self.pool.up(1, 1, '--config', path)
        agent = subprocess.Popen([*start, '--scheduler', scheduler_address(self.pool)], env=self.pool.env,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.terminate)
        wait_until(lambda: len(self.pool.json('gpus')) == 4, 'three GPUs more')

    def test_the_file_of_a_pool_on_one_machine_is_for_its_servers_too(self):
        path, parked = os.path.join(self.pool.home, 'pool.toml'), os.path.join(self.pool.home, 'parked')
        with open(path, 'w', encoding='ascii') as file:
            file.write(f'[pool]\n[[server]]\nname = "node0"\npark_memory_mib = 0\npark_directory = "{parked}"\n')
        self.pool.up(1, 1, '--config', path)
        job = self.pool.start('--name', 'it', '--', job_program('ballast'), '--mib', 32, '--step-ms', 50,
                              '--seconds', 100)
        wait_until(lambda: job.steps() > 2 or not job.running(), 'it works')
        self.expect_ok(self.pool.tide('suspend', 'it'))
        kept = self.pool.job('it')['vgpus'][0]
        self.assertEqual((os.path.isdir(parked), kept['kept_in_memory'], kept['kept_on_disk'] > 0), (True, 0, True))
        self.expect_ok(self.pool.tide('kill', 'it'))
        job.wait()

    def test_memory_ends_at_the_quota(self):
        self.pool.up(2, 1, '--gpu-memory', '256MiB')
        self.expect_ok(self.pool.run('-g', 1, '--', job_program('oom')))
        self.expect_ok(self.pool.run('-g', 1, '--gpu-memory', '128MiB', '--', job_program('oom')))


class Sockets(PoolTest):
    def sockets(self):
        """Every unix socket in the pool's home, every TCP port that one of its processes listens on."""
        found = []
        for folder, _, names in os.walk(self.pool.home):
            kind = 'worker' if os.path.basename(folder) == 'workers' else 'unix'
            found += [(kind, path) for path in (os.path.join(folder, name) for name in names)
                      if stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode)]
        inodes = set()
        for pid in self.pool.processes():
            for fd in os.listdir(f'/proc/{pid}/fd'):
                try:
                    target = os.readlink(f'/proc/{pid}/fd/{fd}')
                except OSError:
                    continue
                if target.startswith('socket:['):
                    inodes.add(target[8:-1])
        with open('/proc/net/tcp') as file:
            for line in file.readlines()[1:]:
                words = line.split()
                if words[3] == '0A' and words[9] in inodes:  # listening
                    found.append(('tcp', int(words[1].split(':')[1], 16)))
        return found

    def daemons(self):
        return {pid: name for pid, name in self.pool.processes().items()
                if 'tide-agent' in name or 'tide-scheduler' in name}

    def socket_for(self, kind):
        return socket.socket(socket.AF_INET if kind == 'tcp' else socket.AF_UNIX,
                             socket.SOCK_SEQPACKET if kind == 'worker' else socket.SOCK_STREAM)

    def send(self, where, data):
        kind, address = where
        with self.socket_for(kind) as peer:
            peer.settimeout(0.2 if kind == 'worker' else 5)  # a worker listens to nobody while it has its agent
            try:
                peer.connect(('127.0.0.1', address) if kind == 'tcp' else address)
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass
            except OSError:
                pass  # refused or closed: both are answers


class Garbage(Sockets):
    def test_garbage_on_every_port(self):
        self.pool.up(gpus=2, servers=2)
        job = self.pool.start('-g', 2, '--name', 'bystander', '--', *train('--steps', 240, '--step-ms', 50))
        wait_until(lambda: job.steps() > 1, 'it trains')
        doors = self.sockets()
        self.assertGreaterEqual(len(doors), 2, doors)
        dice = random.Random(2)
        daemons = self.daemons()
        for door in doors:
            for data in (b'', b'\0' * 16, b'GET / HTTP/1.0\r\n\r\n', b'door' + b'\xff' * 12, dice.randbytes(40),
                         b'door\x01\x00\x05\x00' + (1 << 30).to_bytes(4, 'little') + bytes(4),
                         b'door\x01\x00\x05\x00' + (600).to_bytes(4, 'little') + bytes(4) + dice.randbytes(600),
                         b'door\x01\x00\x01\x00' + (104).to_bytes(4, 'little') + bytes(4) + dice.randbytes(104),
                         dice.randbytes(100000)):
                self.send(door, data)
        for pid in daemons:
            self.assertTrue(os.path.exists(f'/proc/{pid}'), f'{daemons[pid]} died')
        self.expect_ok(self.pool.tide('status'))
        self.assertEqual(job.wait(), 0, job.err())
        self.expect_nothing_left()

    def test_silence_at_the_doors_keeps_nobody_out(self):
        self.pool.up(gpus=1)
        daemons = self.daemons()
        descriptors = {pid: len(os.listdir(f'/proc/{pid}/fd')) for pid in daemons}
        silent = []
        for kind, address in self.sockets():
            for i in range(600):
                peer = self.socket_for(kind)
                silent.append(peer)
                peer.connect(('127.0.0.1', address) if kind == 'tcp' else address)
                if i % 2:
                    peer.sendall(b'door\x01')
        begin = time.monotonic()
        self.expect_ok(self.pool.run('--', *train('--steps', 3)))
        self.assertLess(time.monotonic() - begin, 8, 'it waited for the silent ones to be sent away')
        for peer in silent:
            peer.close()
        wait_until(lambda: all(len(os.listdir(f'/proc/{pid}/fd')) <= descriptors[pid] + 8 for pid in daemons),
                   'their descriptors are given back')
        self.expect_nothing_left()

    def flood(self, doors, seconds):
        """Connections that say garbage and go, as many as there can be; returns how many a second."""
        end, count = time.monotonic() + seconds, 0
        begin = time.monotonic()
        while time.monotonic() < end:
            for kind, address in doors:
                with self.socket_for(kind) as peer:
                    try:
                        peer.connect(('127.0.0.1', address) if kind == 'tcp' else address)
                        peer.send(b'GET / HTTP/1.0\r\n\r\n')
                    except OSError:
                        pass
                count += 1
        return count / (time.monotonic() - begin)

    def test_a_flood_of_garbage_disturbs_no_job(self):
        self.pool.up(gpus=1)
        expected = self.expect_ok(self.pool.run('--', *train('--steps', 60))).out
        daemons = self.daemons()
        descriptors = {pid: len(os.listdir(f'/proc/{pid}/fd')) for pid in daemons}
        doors = self.sockets()
        job = self.pool.start('--', *train('--steps', 60, '--step-ms', 50))
        wait_until(lambda: job.steps() > 1, 'it trains')
        print(f'{self.flood(doors, 3):.0f} connections a second', file=sys.stderr)
        self.assertEqual(job.wait(), 0, job.err())
        self.assertEqual(job.out(), expected)
        self.expect_ok(self.pool.run('--', *train('--steps', 3)))
        wait_until(lambda: all(len(os.listdir(f'/proc/{pid}/fd')) <= descriptors[pid] + 8 for pid in daemons),
                   'their descriptors are given back')
        for pid in daemons:
            with open(f'/proc/{pid}/status') as file:
                rss = next(int(line.split()[1]) for line in file if line.startswith('VmRSS'))
            self.assertLess(rss, 200_000, 'kB of memory')
        self.expect_nothing_left()

    def test_no_port_is_open_to_the_world(self):
        self.pool.up(gpus=1)
        inodes = self.sockets()
        with open('/proc/net/tcp') as file:
            for line in file.readlines()[1:]:
                words = line.split()
                address, port = words[1].split(':')
                if words[3] == '0A' and ('tcp', int(port, 16)) in inodes:
                    self.assertEqual(address[6:], '7F', f'port {int(port, 16)} listens on {address}')


OPEN, REFUSED = 5, 7


def door_version():
    with open(os.path.join(SOURCE, 'transport', 'door.h'), encoding='utf-8') as file:
        return int(re.search(r'kDoorVersion = (\d+)', file.read()).group(1))


def frame(kind, payload=b'', version=None, reserved=0):
    return struct.pack('<4sHHII', b'door', door_version() if version is None else version, kind, len(payload),
                       reserved) + payload


class Doors(Sockets):
    """What the doors answer to who speaks another version, or says again what was true once."""

    def answer(self, where, data):
        """(type, message) of the refusal; None where there is no frame in reply within 8 s."""
        kind, address = where
        with self.socket_for(kind) as peer:
            peer.settimeout(8)
            peer.connect(('127.0.0.1', address) if kind == 'tcp' else address)
            got = b''
            try:
                peer.sendall(data)
                while len(got) < 16 + 520:
                    more = peer.recv(4096)
                    if not more:
                        break
                    got += more
            except OSError:
                pass
        if len(got) < 16 + 520 or got[:4] != b'door':
            return None
        return struct.unpack_from('<H', got, 6)[0], got[24:].split(b'\0')[0].decode()

    def doors(self):
        """Those that answer a frame of the next version: the control port speaks something else."""
        found = {where: self.answer(where, frame(OPEN, version=door_version() + 1)) for where in self.sockets()
                 if where[0] != 'worker'}
        return {where: answer for where, answer in found.items() if answer is not None}

    def test_another_version_is_refused_with_both_and_what_to_update(self):
        self.pool.up(gpus=1)
        ours, doors = door_version(), self.doors()
        self.assertEqual({'tide-agent', 'scheduler'}, {w for _, text in doors.values()
                                                       for w in ('tide-agent', 'scheduler') if w in text}, doors)
        for where in doors:
            for theirs in (ours - 1, ours + 1):
                for kind in (1, OPEN):
                    refused, text = self.answer(where, frame(kind, bytes(64), version=theirs))
                    self.assertEqual(refused, REFUSED)
                    older = 'the client' if theirs < ours else 'this '
                    self.assertRegex(text, f'version {theirs} .*version {ours}: update {older}')
            for wrong in (frame(OPEN, reserved=1), frame(OPEN, bytes(7)), frame(99), frame(2, bytes(8))):
                self.assertEqual(self.answer(where, wrong)[0], REFUSED, (where, wrong[:16]))

    def test_what_was_true_once_is_refused(self):
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--name', 'it', '--', *train('--steps', 150, '--step-ms', 50))
        wait_until(lambda: job.steps() > 1, 'it trains')
        env = next(e for e in map(environment, self.pool.processes()) if e and b'TIDE_TOKEN' in e)
        epoch = self.pool.json('job', 'it')['vgpus'][0]['epoch']
        token = bytes.fromhex(env[b'TIDE_TOKEN'].decode())

        def wish(token=token, epoch=epoch, vgpu=0, flags=0, job=env[b'TIDE_JOB'], attempt=0, session=b's' * 16):
            return frame(OPEN, struct.pack('<64s32s16sIIQQ64sII', job, token, session, vgpu, 1, epoch, 1 << 28,
                                           b'ucx', flags, attempt))
        agents = [where for where, (_, text) in self.doors().items() if 'tide-agent' in text]
        self.assertEqual(len(agents), 2)
        for where in agents:
            for data, words in ((wish(epoch=epoch - 1), 'epoch'), (wish(epoch=epoch + 1), 'epoch'),
                                (wish(token=bytes(32)), 'token'), (wish(job=b'nobody'), 'does not hold'),
                                (wish(vgpu=1), 'does not hold'), (wish(vgpu=1000), 'no vGPU'),
                                (wish(job=b'x' * 64), 'text'), (wish(flags=4), 'flag'),
                                (wish(flags=1), 'worker has ended')):
                refused, text = self.answer(where, data)
                self.assertEqual((refused, words in text), (REFUSED, True), text)
        self.assertEqual(job.wait(), 0, job.err())
        self.expect_nothing_left()


OTHER = os.path.join(BUILD, 'tests', 'scheduler', 'other-scheduler')


class Versions(PoolTest):
    """What a user reads where the pool is of another version."""

    def scheduler_of(self, version):
        scheduler = subprocess.Popen([OTHER, str(version)], stdout=subprocess.PIPE, text=True)
        self.addCleanup(scheduler.wait)
        self.addCleanup(scheduler.kill)
        self.addCleanup(scheduler.stdout.close)
        return scheduler.stdout.readline().strip()

    def test_a_scheduler_of_another_version(self):
        with open(os.path.join(SOURCE, 'scheduler', 'control.capnp'), encoding='utf-8') as file:
            ours = int(re.search(r'protocol :UInt32 = (\d+)', file.read()).group(1))
        for theirs in (1, ours + 1):
            address = self.scheduler_of(theirs)
            update = 'the scheduler' if theirs < ours else 'this '
            expected = f'version {theirs}.* version {ours}: update {update}|' \
                       f'version {ours} .* version {theirs}: update {update}'
            for words in (['status'], ['jobs'], ['run', '-g', '1', '--', 'true'], ['gpus']):
                begin = time.monotonic()
                result = self.pool.tide('--pool', address, *words)
                self.assertNotEqual(result.status, 0)
                self.assertRegex(result.err, expected)
                self.assertEqual(len(result.err.strip().splitlines()), 1, result.err)
                self.assertLess(time.monotonic() - begin, 5)
            log = os.path.join(self.pool.home, f'agent-{theirs}.log')
            with open(log, 'w', encoding='ascii') as file:
                agent = subprocess.Popen([agent_path(self.pool), '--scheduler', address, '--name', 'it', '--dir',
                                          os.path.join(self.pool.home, 'it'), '--softgpu-devices', '1'],
                                         env=self.pool.env, stderr=file)
            self.addCleanup(agent.wait)
            self.addCleanup(agent.kill)

            def said():
                with open(log, encoding='utf-8') as file:
                    return [line for line in file.read().splitlines() if re.search(expected, line)]
            wait_until(said, 'the agent says so')
            time.sleep(1)
            self.assertEqual(len(said()), 1, 'once')
            agent.terminate()
            agent.wait()


def environment(pid):
    try:
        with open(f'/proc/{pid}/environ', 'rb') as file:
            return dict(word.split(b'=', 1) for word in file.read().split(b'\0') if b'=' in word)
    except OSError:
        return {}


class Programs(PoolTest):
    def test_our_small_programs(self):
        self.pool.up(gpus=2)
        for line in ('peer_copy', 'bandwidth --mib 4 --rounds 2', 'oom', 'errors', 'globals --seconds 1',
                     'churn --rounds 60', 'copies', 'mirrors --live', 'saxpy_drv', 'launch_cost --batches 11'):
            name, *options = line.split()
            with self.subTest(program=name):
                self.expect_ok(self.pool.run('-g', 2, '--', job_program(name), *options))
        self.expect_nothing_left()

    def test_a_shell_without_cuda_is_left_alone(self):
        self.pool.up(gpus=1)
        result = self.expect_ok(self.pool.run('-g', 1, '--', 'sh', '-c', 'echo a | cat; (sleep 0 & wait); echo b'))
        self.assertEqual(result.out, 'a\nb\n')

    def test_env_makes_a_shell_a_job(self):
        self.pool.up(gpus=1)
        script = f'eval "$({self.pool.tide_path} env -g 1)" && exec {job_program("peer_copy")}'
        done = subprocess.run(['bash', '-c', script], env=self.pool.env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == '__main__':
    unittest.main(verbosity=2)
