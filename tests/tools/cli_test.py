"""What people type: the answers of `tide`, its exit statuses, and that nothing is left over."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

TIDE = os.environ.get('TIDE_BIN') or 'tide'
PATIENCE_S = 20


class Cli(unittest.TestCase):
    def setUp(self):
        self.home = tempfile.mkdtemp(prefix='tide-cli-')
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(('TIDE_', 'LD_'))}
        self.env.update(TIDE_HOME=self.home, TIDE_AGENT=os.environ['TIDE_AGENT'], TIDE_LIB=os.environ['TIDE_LIB'])
        self.started = []
        self.addCleanup(self.close)

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.tide('down')
        shutil.rmtree(self.home, ignore_errors=True)

    def tide(self, *words, **more):
        return subprocess.run([TIDE, *map(str, words)], env=dict(self.env, **more), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def start(self, *words):
        process = subprocess.Popen([TIDE, *map(str, words)], env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process

    def ok(self, *words, **more):
        done = self.tide(*words, **more)
        self.assertEqual(done.returncode, 0, f'{words}: {done.stderr}')
        return done.stdout

    def json(self, *words):
        return json.loads(self.ok(*words, '--json'))

    def error(self, status, text, *words, **more):
        done = self.tide(*words, **more)
        self.assertEqual((done.returncode, done.stderr), (status, text), words)
        self.assertEqual(done.stdout, '')

    def wait_until(self, condition, what):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.05)

    def state(self, name):
        return {job['name']: job['state'] for job in self.json('jobs')}.get(name)

    def daemons(self):
        """pid -> command of what runs with this home."""
        found = {}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/environ', 'rb') as file:
                    mine = f'TIDE_HOME={self.home}'.encode() in file.read().split(b'\0')
                with open(f'/proc/{pid}/comm') as file:
                    name = file.read().strip()
            except OSError:
                continue
            if mine:
                found[int(pid)] = name
        return found


class WithoutAPool(Cli):
    def test_no_pool_says_how_to_get_one(self):
        missing = (f'tide: there is no pool: none is running on this machine (in {self.home}), and neither --pool nor '
                   'TIDE_POOL names another. `tide up` starts one\n')
        for words in ('status', 'jobs', 'gpus', 'job 1', 'why 1', 'resize 1 --gpus 1', 'migrate 1 a/0', 'kill 1',
                      'drain a', 'undrain a', 'suspend 1', 'resume 1', 'env'):
            self.error(1, missing, *words.split())
        self.error(125, missing, 'run', '-g', 1, '--', 'true')
        self.error(1, f'tide: no pool is running on this machine (in {self.home}); `tide up` starts one\n', 'down')

    def test_a_pool_that_does_not_answer(self):
        text = ('tide: no scheduler answers at 127.0.0.1:1 (Connection refused). If its pool died, `tide down` '
                'cleans up; `tide up` starts a new one\n')
        self.error(1, text, 'status', '--pool', '127.0.0.1:1')
        self.error(1, text, '--pool', '127.0.0.1:1', 'status')
        self.error(1, text, 'status', TIDE_POOL='127.0.0.1:1')
        self.error(125, text, 'run', '--', 'true', TIDE_POOL='127.0.0.1:1')

        for address, why in (('nonsense', "'nonsense' is no address; write"),
                             ('127.0.0.1:99999', "'127.0.0.1:99999' is no address; write"),
                             ('no-such-host.invalid:7411', 'no scheduler answers at no-such-host.invalid:7411 (')):
            done = self.tide('status', '--pool', address)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)
            self.assertEqual(done.stderr.count('\n'), 1, done.stderr)

    def test_what_answers_is_no_scheduler(self):
        with socket.create_server(('127.0.0.1', 0)) as server:
            def answer():
                peer, _ = server.accept()
                with peer:
                    peer.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n' * 20)
            threading.Thread(target=answer, daemon=True).start()
            done = self.tide('status', '--pool', '127.0.0.1:%d' % server.getsockname()[1])
        self.assertEqual(done.returncode, 1)
        self.assertIn('what answers there is none', done.stderr)

    def test_wrong_words(self):
        self.error(2, "tide: there is no command 'frobnicate'; `tide --help` lists them\n", 'frobnicate')
        self.error(2, 'tide top: --interval is 500ms to 1h; see tide top --help\n', 'top', '--interval', '1ms')
        self.error(2, 'tide report: --since is missing: 7d, 12h, or 2026-11-01, say; see tide report --help\n',
                   'report')
        self.error(2, 'tide drain: expects one server; see tide drain --help\n', 'drain')
        self.error(2, 'tide undrain: expects one server; see tide undrain --help\n', 'undrain', 'a', 'b')
        self.error(2, "tide run: 'rack' is no label; it is KEY=VALUE, like rack=a; see tide run --help\n", 'run',
                   '--label', 'zone=b', '--label', 'rack', '--', 'true')
        self.error(2, "tide run: --together is server or switch, not 'rack'; see tide run --help\n", 'run',
                   '--together', 'rack', '--', 'true')
        self.error(2, 'tide config: expects: check FILE, or apply FILE; see tide config --help\n', 'config', 'apply')
        self.error(2, 'tide run: option --frob is not understood; see tide run --help\n', 'run', '--frob', '--', 'true')
        self.error(2, "tide run: --gpus must be a number from 1 to 1000000, not 'many'; see tide run --help\n",
                   'run', '-g', 'many', '--', 'true')
        self.error(2, "tide run: --gpus must be a number from 1 to 1000000, not '-1'; see tide run --help\n",
                   'run', '-g', '-1', '--', 'true')
        for part in ('0.0', '0.005', '1.5', '0.1234', '.5', '0.x', '-0.5'):
            self.error(2, 'tide run: --gpus must be a whole number, or a part of one GPU from 0.01 to 0.999, not '
                       f"'{part}'; see tide run --help\n", 'run', '-g', part, '--', 'true')
        self.error(2, 'tide run: --min is for whole GPUs; see tide run --help\n', 'run', '-g', '0.5', '--min', 1, '--',
                   'true')
        self.error(2, "tide run: --gpu-memory must be a size like 512MiB or 2GiB, not '2XB'; see tide run --help\n",
                   'run', '--gpu-memory', '2XB', '--', 'true')
        self.error(2, 'tide run: needs a command, like: tide run -g 1 -- ./program; see tide run --help\n', 'run',
                   '-g', 1)
        self.error(2, 'tide run: -g needs a value; see tide run --help\n', 'run', '-g')
        self.error(2, 'tide resize: expects one job; see tide resize --help\n', 'resize')
        self.error(2, 'tide resize: needs --gpus M; see tide resize --help\n', 'resize', 'x')
        self.error(2, 'tide suspend: expects one job or more; see tide suspend --help\n', 'suspend')
        self.error(2, 'tide resume: expects one job or more; see tide resume --help\n', 'resume', '--wait')
        self.error(2, "tide migrate: 'nowhere' is not SERVER/INDEX; see tide migrate --help\n", 'migrate', 'x',
                   'nowhere')
        self.error(2, "tide up: --gpus must be a number from 1 to 1024, not '0'; see tide up --help\n", 'up',
                   '--gpus', 0)
        self.error(2, "tide status: 'now' is not understood; see tide status --help\n", 'status', 'now')

    def test_a_command_that_cannot_be_run(self):
        self.error(127, 'tide: ./no-such-command: No such file or directory\n', 'run', '--', './no-such-command')
        self.error(127, 'tide: no-such-command: command not found\n', 'run', '--', 'no-such-command')
        self.error(126, 'tide: /etc/passwd is not executable; chmod +x makes it so\n', 'run', '--', '/etc/passwd')

    def test_help_of_everything(self):
        listed = self.ok('--help')
        for name in ('up down run env status jobs gpus queues top job why resize migrate suspend resume kill drain '
                     'undrain config doctor simulate report snapshot version').split():
            self.assertIn(f'\n  {name}', listed)
            self.assertTrue(self.ok(name, '--help').startswith(f'usage: tide {name}'), name)
        self.assertRegex(self.ok('version'), r'^tide \d')
        self.assertEqual(self.tide().returncode, 2)

    def test_config_check(self):
        path = os.path.join(self.home, 'pool.toml')
        with open(path, 'w') as file:
            file.write('[pool]\nlissten = "x"\n')
        self.error(1, f"{path}:2:1: unknown key 'lissten' in [pool]; did you mean 'listen'?\n", 'config', 'check', path)
        self.error(1,
                   f"tide: the configuration has errors:\n  {path}:2:1: unknown key 'lissten' in [pool]; did you mean "
                   "'listen'?\n", 'up', '--config', path)
        with open(path, 'w') as file:
            file.write('[pool]\nlisten = "127.0.0.1:0"\n')
        self.assertEqual(self.ok('config', 'check', path), f'{path}: ok\n')
        self.ok('up', '--config', path)

    def test_a_port_that_is_taken(self):
        path = os.path.join(self.home, 'pool.toml')
        with socket.create_server(('127.0.0.1', 0)) as server:
            address = '127.0.0.1:%d' % server.getsockname()[1]
            with open(path, 'w') as file:
                file.write(f'[pool]\nlisten = "{address}"\n')
            done = self.tide('up', '--config', path)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, f'cannot listen on {address}, .*: Address already in use; does another scheduler')

    def test_an_agent_that_does_not_start(self):
        done = self.tide('up', TIDE_AGENT='/bin/false')
        self.assertEqual(done.returncode, 1)
        self.assertIn('tide-agent ended at once', done.stderr)
        self.assertEqual(self.daemons(), {})
        self.ok('up')

    def test_a_local_pool_lives_as_long_as_the_command(self):
        done = self.tide('run', '--local', '-g', 2, '--', 'sh', '-c', 'echo $TIDE_VGPUS; exit 5')
        self.assertEqual((done.returncode, done.stdout, done.stderr), (5, '2\n', ''))
        self.assertEqual(self.daemons(), {})


QUEUES = """
[[queue]]
name = "science"
quota = 3
[[queue]]
name = "physics"
parent = "science"
quota = 2
[[queue]]
name = "biology"
parent = "science"
limit = 1
[[queue]]
name = "guests"
over_quota_weight = 0.5
[policy]
half_life = "1h"
"""


class WithQueues(Cli):
    def setUp(self):
        super().setUp()
        path = os.path.join(self.home, 'pool.toml')
        with open(path, 'w') as file:
            file.write(QUEUES)
        self.ok('up', '--gpus', 4, '--config', path)

    def queue(self, name):
        return next(q for q in self.json('queues')['queues'] if q['name'] == name)

    def run_in(self, queue, name, *words):
        self.start('run', '--queue', queue, '--name', name, *words, '--', 'sleep', 100)

    def test_what_a_queue_cannot_take_is_refused_at_once(self):
        for words, text in (
                (('--queue', 'chemistry'), "there is no queue 'chemistry'; there are guests, physics, biology"),
                (('--queue', 'science'), "queue 'science' has queues below it and takes no jobs itself; choose one of "
                 'physics, biology'),
                ((), "the pool has several queues and none is called 'default': say --queue with one of guests, "
                 'physics, biology'),
                (('--queue', 'biology', '-g', 2), "queue 'biology' has a limit of 1 GPU; -g 2 asks for more. Use -g 1, "
                 'or --min 1 to let 2 virtual GPUs share them, or another --queue'),
                (('--queue', 'biology', '-g', 2, '--min', 2), "queue 'biology' has a limit of 1 GPU; --min 2 asks for "
                 'more. Use --min 1 or less, or another --queue')):
            self.error(125, f'tide: {text}\n', 'run', *words, '--', 'true')
        self.ok('run', '--queue', 'biology', '-g', 2, '--min', 1, '--', 'true')

    def test_queues_share_and_say_so(self):
        self.run_in('guests', 'guest', '-g', 4)
        self.wait_until(lambda: self.gpus_of('guest') == 4, 'the guest borrows all')
        self.run_in('physics', 'physicist', '-g', 2, '--min', 2)
        self.wait_until(lambda: self.gpus_of('physicist') == 2, 'the owner gets its own')
        self.run_in('biology', 'first')
        self.wait_until(lambda: self.gpus_of('first') == 1, 'first runs')
        self.assertEqual(self.gpus_of('guest'), 1)
        self.run_in('biology', 'second')
        self.wait_until(lambda: self.state('second') == 'queued', 'second waits')
        why = self.json('why', 'second')
        self.assertEqual(why['reason'], "queue 'biology' has a limit of 1 GPU and holds 1 GPU; it needs 1 GPU more")
        self.assertIn('it starts when jobs of that queue end or shrink (3)', why['next'])
        biology = self.queue('biology')
        self.assertEqual((biology['allocated'], biology['waiting_jobs'], biology['limit'], biology['parent']),
                         (1, 1, 1, 'science'))
        science = self.queue('science')
        self.assertEqual((science['allocated'], science['fair_share'], science['leaf']), (3, 3, False))
        self.assertNotIn('limit', science)
        shown = self.ok('queues')
        self.assertRegex(shown, r'(?m)^science +3 +- +1 +3 +3 +1 \(1\)')
        self.assertRegex(shown, r'(?m)^  biology +0 +1 +1 +1 +1 +1 \(1\)')
        self.assertEqual(self.json('job', 'second')['queue'], 'biology')

    def test_a_rigid_borrower_is_suspended_for_the_owner_and_comes_back(self):
        self.run_in('guests', 'guest', '-g', 4, '--min', 4)
        self.wait_until(lambda: self.gpus_of('guest') == 4, 'the guest borrows all')
        self.run_in('physics', 'owner', '-g', 2, '--min', 2)
        self.wait_until(lambda: self.gpus_of('owner') == 2, 'the owner gets its own')
        self.assertEqual(self.state('guest'), 'suspended')
        self.ok('kill', 'owner')
        self.wait_until(lambda: self.gpus_of('guest') == 4, 'the guest goes on')

    def test_the_past_outlives_the_scheduler(self):
        self.run_in('guests', 'guest', '-g', 4)
        self.wait_until(lambda: self.queue('guests')['used_gpu_s'] > 2, 'it is counted')
        self.ok('kill', 'guest')
        self.ok('down')
        had = 2
        self.ok('up', '--gpus', 4, '--config', os.path.join(self.home, 'pool.toml'))
        self.assertGreater(self.queue('guests')['used_gpu_s'], had * 0.9)

    def gpus_of(self, name):
        done = self.tide('job', name, '--json')
        return json.loads(done.stdout)['physical_gpus'] if done.returncode == 0 else -1


RESERVED = """
[[queue]]
name = "default"
quota = 2
models = { Fake = { quota = 1, limit = 3 } }

[[queue]]
name = "borrowers"

[[reservation]]
name = "soon"
gpus = 2
from = %s
until = %s
user = ["nobody-else", "%s"]

[[reservation]]
name = "theirs"
gpus = 1
from = %s
until = %s
queue = "borrowers"
exclusive = true

[[reservation]]
name = "past"
gpus = 1
from = 2001-01-01T00:00:00Z
until = 2001-01-02T00:00:00+02:00
"""


class WithReservations(Cli):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.home, 'pool.toml')
        self.write(3, 3600)
        self.ok('up', '--gpus', 4, '--config', self.path)

    def write(self, begins, ends):
        def moment(seconds):
            return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + seconds))
        with open(self.path, 'w') as file:
            file.write(RESERVED % (moment(begins), moment(ends), getpass.getuser(), moment(5000), moment(6000)))

    def gpus_of(self, name):
        done = self.tide('job', name, '--json')
        return json.loads(done.stdout)['physical_gpus'] if done.returncode == 0 else -1

    def of_reservation(self, name):
        return next(r for r in self.json('status')['reservations'] if r['name'] == name)

    def test_who_may_not_is_refused_at_once(self):
        for words, text in (
                (('--reservation', 'never'), "there is no reservation 'never'; there are soon, theirs, past"),
                (('--reservation', 'past'), "reservation 'past' is over since 2001-01-01 22:00:00 UTC; leave "
                 '--reservation out'),
                (('--reservation', 'soon', '-g', 3), "reservation 'soon' has 2 GPUs; -g 3 asks for more. Use -g 2, or "
                 '--min 2 to let 3 virtual GPUs share them'),
                (('--reservation', 'theirs'), "reservation 'theirs' is for jobs in queue borrowers; this job is of "
                 f'user {getpass.getuser()}, in queue default')):
            self.error(125, f'tide: {text}\n', 'run', *words, '--', 'true')

    def test_it_begins_and_others_give_way_and_come_back(self):
        self.start('run', '--queue', 'borrowers', '--name', 'borrower', '-g', 4, '--min', 4, '--', 'sleep', 100)
        self.wait_until(lambda: self.gpus_of('borrower') == 4, 'the borrower has all')
        self.start('run', '--name', 'owner', '--reservation', 'soon', '-g', 2, '--min', 2, '--', 'sleep', 100)
        self.wait_until(lambda: self.state('owner') in ('queued', 'running'), 'the owner is there')
        if self.state('owner') == 'queued':  # on a slow machine it has begun by now
            self.assertIn('soon', self.json('why', 'owner')['reason'])
        self.wait_until(lambda: self.gpus_of('owner') == 2, 'it begins')
        self.assertEqual(self.state('borrower'), 'suspended')
        soon = self.of_reservation('soon')
        self.assertEqual((soon['stage'], soon['kept'], soon['used'], soon['running_jobs']), ('now', 2, 2, 1))
        self.assertEqual(self.of_reservation('past')['stage'], 'over')
        self.assertRegex(self.ok('status'), r'(?m)^soon +now +2 +2 +2 ')
        self.assertRegex(self.ok('queues'), r'(?m)^theirs +coming .*queue borrowers; exclusive')
        self.assertEqual(self.json('queues')['queues'][0]['allocated'], 0)  # what is reserved counts for no queue
        # Ended before its time by a new file: its job goes on.
        self.write(-20, -10)
        foreseen = self.json('config', 'apply', self.path, '--dry-run')
        self.assertTrue(any(line.startswith('reservation soon: 2 GPUs from ') for line in foreseen['changes']),
                        foreseen)
        self.ok('config', 'apply', self.path)
        self.wait_until(lambda: self.of_reservation('soon')['stage'] == 'over', 'it is over')
        self.assertEqual(self.gpus_of('owner'), 2)
        self.ok('kill', 'owner')
        self.wait_until(lambda: self.gpus_of('borrower') == 4, 'the borrower is back')

    def test_a_limit_by_model_is_shown_and_kept(self):
        name = self.json('gpus')[0]['name']
        with open(self.path) as file:
            text = file.read().replace('Fake', f'"{name}"')
        with open(self.path, 'w') as file:
            file.write(text)
        self.ok('config', 'apply', self.path)
        self.error(125, f"tide: queue 'default' has a limit of 3 GPUs of model {name}; -g 4 asks for more; --min lets "
                   'virtual GPUs share fewer\n', 'run', '-g', 4, '--', 'true')
        self.start('run', '--name', 'wide', '-g', 4, '--min', 1, '--', 'sleep', 100)
        self.wait_until(lambda: self.gpus_of('wide') == 3, 'as many as it may')
        shown = next(q for q in self.json('queues')['queues'] if q['name'] == 'default')
        self.assertEqual(shown['models'], [{'model': name, 'quota': 1, 'limit': 3, 'allocated': 3, 'usable': 4}])
        self.assertRegex(self.ok('queues'), rf'(?m)^  {name}: has 3, quota 1, limit 3$')


IMPORT_KAI = """apiVersion: scheduling.run.ai/v2
kind: Queue
metadata: {name: all}
spec:
  resources:
    gpu: {quota: -1, limit: -1, overQuotaWeight: 1}
---
apiVersion: scheduling.run.ai/v2
kind: Queue
metadata: {name: team}
spec:
  parentQueue: all
  reclaimMinRuntime: 10m
  preemptMinRuntime: 1h30m
  resources:
    gpu: {quota: 2.5, limit: 8, overQuotaWeight: 2}
"""
KAI_QUEUES = """[[queue]]
name = "all"
quota = 2.5

# line 14: preemptMinRuntime 1h30m is left out: it is no time like 90s, 10m or 2h
[[queue]]
name = "team"
parent = "all"
quota = 2.5
limit = 8
over_quota_weight = 2
min_runtime = "10m"
"""
IMPORT_RUNAI = {
    'departments': [{'id': 'd1', 'name': 'team', 'resources': [{'gpu': {'deserved': 4, 'limit': None}}]}],
    'projects': [{'id': '1', 'name': 'team', 'parentId': 'd1', 'resources': [
        {'nodePool': {'name': 'a'}, 'gpu': {'deserved': 3, 'limit': 4, 'overQuotaWeight': 2}, 'priority': 'High'},
        {'nodePool': {'name': 'b'}, 'gpu': {'deserved': 2, 'limit': 2, 'overQuotaWeight': 2}}]}]}
RUNAI_QUEUES = """[[queue]]
name = "team-department"
quota = 5

# line 21: the GPUs of 2 node pools are added up: there is one pool here
# line 21: where these differ by GPU model, write its words: models = { a = { quota = 3, limit = 4 }, \
b = { quota = 2, limit = 2 } }
[[queue]]
name = "team"
parent = "team-department"
quota = 5
limit = 6
over_quota_weight = 2
priority = 1
"""


class Imports(Cli):
    def path_of(self, text):
        path = os.path.join(self.home, 'queues')
        with open(path, 'w') as file:
            file.write(text)
        return path

    def test_kai(self):
        path = self.path_of(IMPORT_KAI)
        done = self.tide('config', 'import', '--from', 'kai', path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.endswith(KAI_QUEUES), done.stdout)
        self.assertIn(f'{path}:14: preemptMinRuntime 1h30m is left out', done.stderr)
        self.assertIn(f'{path}:1: its quota was unlimited', done.stderr)
        self.ok('config', 'check', self.path_of(done.stdout))

    def test_runai(self):
        path = self.path_of(json.dumps(IMPORT_RUNAI, indent=1))
        done = self.tide('config', 'import', '--from', 'runai', path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.endswith(RUNAI_QUEUES), done.stdout)
        self.assertIn('its quota of 4 was less than 5, which those below it have together', done.stderr)
        self.ok('config', 'check', self.path_of(done.stdout))

    def test_what_is_no_such_file(self):
        for text, error in (('a: [1\nb: }', ":2:2: did not find expected ',' or ']'"), ('kind: Pod', ': there are no'),
                            ('[' * 100_000, ':1:65: more than 64 levels'),
                            ('a: &x [1]\nb: *x\n', ':2:4: aliases (*name) are not read; write what it stands for'),
                            ('', ': there are no queues in it')):
            done = self.tide('config', 'import', '--from', 'kai', self.path_of(text))
            self.assertEqual((done.returncode, done.stdout), (1, ''), text[:40])
            self.assertIn(error, done.stderr)
        # Names and comments cannot become something else.
        path = self.path_of(json.dumps({'kind': 'Queue', 'metadata': {'name': 'a"\n[pool]'},
                                        'spec': {'displayName': 'x\nlisten = "here"'}}))
        done = self.tide('config', 'import', '--from', 'kai', path)
        self.assertEqual(done.returncode, 1)
        self.assertNotIn('\n[pool]', done.stdout)
        self.assertNotIn('\nlisten', done.stdout)


class WithAPool(Cli):
    def setUp(self):
        super().setUp()
        self.assertIn('pool is up: 4 software GPUs on 2 servers', self.ok('up', '--gpus', 4, '--servers', 2))

    def test_the_exit_status_is_the_command_s(self):
        for command, status in (('exit 0', 0), ('exit 7', 7), ('kill -TERM $$', 143), ('kill -KILL $$', 137)):
            done = self.tide('run', '--', 'sh', '-c', command)
            self.assertEqual((done.returncode, done.stderr), (status, ''), command)

    def test_the_command_s_environment(self):
        words = self.ok('run', '-g', 3, '--', 'env', TIDE_TRANSPORT='sim', LD_PRELOAD='').split('\n')
        values = dict(word.split('=', 1) for word in words if '=' in word)
        self.assertEqual(values['TIDE_VGPUS'], '3')
        self.assertEqual(values['TIDE_JOB'], '1')
        self.assertEqual(len(values['TIDE_TOKEN']), 64)
        self.assertRegex(values['TIDE_DOOR'], r'^127\.0\.0\.1:\d+$')
        self.assertEqual(values['TIDE_TRANSPORT'], 'sim')
        self.assertEqual(values['LD_PRELOAD'], os.path.join(os.environ['TIDE_LIB'], 'libtidecuda.so'))

    def test_more_than_there_is(self):
        self.error(125, 'tide: the pool has 4 GPUs; -g 8 asks for more. Use -g 4, or --min 4 to let 8 virtual GPUs '
                   'share them\n', 'run', '-g', 8, '--', 'true')
        self.error(125, 'tide: the pool has 4 GPUs; --min 5 asks for more. Use --min 4 or less\n',
                   'run', '-g', 8, '--min', 5, '--', 'true')
        self.error(125, 'tide: --min must be between 1 and the job\'s 1 GPUs, not 3\n', 'run', '--min', 3, '--', 'true')
        self.error(125, 'tide: a job has 1 to 64 GPUs, not 1000\n', 'run', '-g', 1000, '--', 'true')
        self.error(125, 'tide: there is no queue \'q\': the pool has none; leave --queue out\n',
                   'run', '--queue', 'q', '--', 'true')
        self.ok('run', '-g', 8, '--min', 1, '--', 'true')

    def test_a_full_pool_makes_a_job_wait_and_says_why(self):
        self.start('run', '-g', 4, '--min', 4, '--name', 'first', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('first') == 'running', 'first runs')
        second = self.start('run', '--name', 'second', '--', 'echo', 'done')
        self.wait_until(lambda: self.state('second') == 'queued', 'second waits')
        reason = 'needs 1 GPU; 0 of 4 can be free while the jobs before it keep their minimum'
        self.assertEqual(self.ok('why', 'second').split('\n')[0], 'job 2 is queued: ' + reason)
        time.sleep(1)
        self.assertEqual(self.ok('kill', 'first'), 'job first was killed\n')
        out, err = second.communicate(timeout=PATIENCE_S)
        self.assertEqual((second.returncode, out), (0, 'done\n'))
        self.assertEqual(err, f'tide: job 2 waits: {reason}\ntide: job 2 runs\n')
        out, err = self.started[0].communicate(timeout=PATIENCE_S)
        self.assertEqual((self.started[0].returncode, err), (125, 'tide: job 1 was ended: killed by `tide kill`\n'))

    def test_resize_and_migrate_report(self):
        self.start('run', '-g', 4, '--name', 'it', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('it') == 'running', 'it runs')
        self.assertEqual(self.ok('resize', 'it', '--gpus', 1),
                         'job 1: 4 -> 1 GPU, 3 vGPUs moved, 2.9 KiB in 1 round, 300 B of it in pauses, '
                         'longest pause 2 ms (drain 0, copy 0, restore 0)\n')
        report = self.json('resize', 'it', '--gpus', 4)
        self.assertEqual({k: report[k] for k in ('bytes', 'pause_ms', 'rounds', 'vgpus')},
                         {'bytes': 3000, 'pause_ms': 3, 'rounds': 1, 'vgpus': 3})
        self.assertEqual([report[k] for k in ('pause_bytes', 'drain_ms', 'copy_ms', 'restore_ms')],
                         [300, 0.25, 0.5, 0.375], 'the phases are those of the longest pause')
        self.assertEqual(self.json('migrate', 'it:3', 'node0/0')['vgpus'], 1)
        vgpus = self.json('job', 'it')['vgpus']
        self.assertEqual([vgpu['gpu'] for vgpu in vgpus], ['node0/0', 'node0/1', 'node1/0', 'node0/0'])
        self.assertNotIn('last_move', vgpus[0])
        self.assertEqual(vgpus[3]['last_move'], {'bytes': 1000, 'pause_ms': 4, 'rounds': 1, 'pause_bytes': 100,
                                                 'drain_ms': 0.25, 'copy_ms': 0.5, 'restore_ms': 0.5})
        self.assertIn('last move of virtual GPU 3: 1000 B in 1 round, 100 B of it in pauses, longest pause 4 ms '
                      '(drain 0, copy 0, restore 0)\n', self.ok('job', 'it'))
        self.error(1, 'tide: job 1 can have 1 to 4 physical GPUs (its --min and -g), not 5\n', 'resize', 'it',
                   '--gpus', 5)
        self.error(1, 'tide: there is no GPU nowhere/9; `tide gpus` lists them\n', 'migrate', 'it:0', 'nowhere/9')
        self.error(1, 'tide: job 1 has virtual GPUs 0 to 3\n', 'migrate', 'it:9', 'node0/0')
        self.error(1, 'tide: there is no job nobody; `tide jobs` lists them\n', 'resize', 'nobody', '--gpus', 1)

    def test_suspend_and_resume(self):
        self.start('run', '-g', 4, '--min', 4, '--name', 'it', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('it') == 'running', 'it runs')
        self.assertEqual(self.ok('suspend', 'it'),
                         'job 1: 4 -> 0 GPUs, 4 vGPUs moved, 3.9 KiB in 1 round, 400 B of it in pauses, longest pause '
                         '2 ms (drain 0, copy 0, restore 0)\n'
                         '  kept: virtual GPUs 0,1 on node0; virtual GPUs 2,3 on node1; 12 MiB in memory, 4 MiB on '
                         'disk (24 MiB if equal chunks were not kept once)\n')
        self.assertEqual(self.json('suspend', 'it')['vgpus'], 0, 'it is suspended')
        self.assertEqual((self.json('status')['gpus_busy'], self.json('status')['jobs_suspended']), (0, 1))
        self.assertIn('0 running, 0 queued, 1 suspended\n', self.ok('status'))
        job = self.json('job', 'it')
        self.assertEqual((job['state'], job['suspended'], job['physical_gpus']), ('suspended', True, 0))
        self.assertEqual([vgpu['gpu'] for vgpu in job['vgpus']], ['node0/parked'] * 2 + ['node1/parked'] * 2)
        self.assertEqual([vgpu['kept_in_memory'] for vgpu in job['vgpus']], [3 << 20] * 4)
        self.assertEqual([vgpu['kept_apart'] for vgpu in job['vgpus']], [6 << 20] * 4)
        self.assertIn('  kept     virtual GPUs 0,1 on node0; virtual GPUs 2,3 on node1: 12 MiB in memory, 4 MiB on '
                      'disk (24 MiB if equal chunks were not kept once)\n', self.ok('job', 'it'))
        self.assertEqual(self.ok('why', 'it'),
                         'job 1 is suspended: kept without a GPU until `tide resume 1`\n'
                         'next: anybody who uses this pool can run `tide resume 1`; `tide kill 1` ends it\n')
        self.assertRegex(self.ok('jobs'), r'it +suspended 0 of 4 ')
        self.assertIn('\njob 1 is on no GPU: virtual GPUs 0,1 on node0; virtual GPUs 2,3 on node1\n', self.ok('gpus'))
        suspended = 'tide: job 1 is suspended; `tide resume 1` gives it GPUs again\n'
        self.error(1, suspended, 'resize', 'it', '--gpus', 4)
        self.error(1, suspended, 'migrate', 'it:0', 'node0/0')
        self.assertRegex(self.ok('resume', 'it'), r'^job 1: 0 -> 4 GPUs, 4 vGPUs moved, 3\.9 KiB in 1 round')
        self.assertEqual(self.state('it'), 'running')
        self.assertEqual(self.ok('resume', 'it'), 'job 1: 4 -> 4 GPUs, nothing to move\n')

    def test_who_is_resumed_waits_its_turn(self):
        for name in ('first', 'second'):
            self.start('run', '-g', 2, '--min', 2, '--name', name, '--', 'sleep', 100)
            self.wait_until(lambda: self.state(name) == 'running', name + ' runs')
        third = self.start('run', '-g', 4, '--min', 4, '--name', 'third', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('third') == 'queued', 'third waits')
        lines = [json.loads(line) for line in self.ok('suspend', 'first', 'second', '--json').splitlines()]
        self.assertEqual([(line['job'], line['gpus_before'], line['gpus_after'], line['state'], line['vgpus'])
                          for line in lines], [('1', 2, 0, 'suspended', 2), ('2', 2, 0, 'suspended', 2)])
        self.wait_until(lambda: self.state('third') == 'running', 'third has what they had')
        reason = 'needs 2 GPUs; 0 of 4 can be free while the jobs before it keep their minimum'
        self.assertEqual(self.ok('resume', 'first'),
                         f'job 1 waits: {reason}\n  it runs by itself when there is room\n')
        self.assertEqual(self.ok('why', 'first'),
                         f'job 1 is suspended: waits to run again: {reason}\n'
                         '  GPUs: job 3 has 4\n  it asked for 2 virtual GPUs, on at least 2 physical ones\n'
                         'next: it goes on by itself; `tide jobs` lists who holds GPUs\n')
        again = self.json('resume', 'second')
        self.assertEqual((again['state'], again['queued'], again['gpus_after']), ('suspended', reason, 0))
        waiting = self.start('resume', 'first', '--wait', '--json')
        given_up = self.start('resume', 'second', '--wait')
        time.sleep(1)
        self.assertIsNone(waiting.poll())
        self.ok('suspend', 'second')
        _, err = given_up.communicate(timeout=PATIENCE_S)
        self.assertEqual((given_up.returncode, err), (1, 'tide: job 2 was suspended again\n'))
        third.kill()
        out, err = waiting.communicate(timeout=PATIENCE_S)
        self.assertEqual((waiting.returncode, err), (0, ''))
        report = json.loads(out)
        self.assertEqual((report['state'], report['queued'], report['gpus_after'], report['vgpus']),
                         ('running', '', 2, 2))
        done = self.tide('suspend', 'first', 'nobody')
        self.assertEqual((done.returncode, done.stderr), (1, 'tide: there is no job nobody; `tide jobs` lists them\n'))
        self.assertIn('job 1: 2 -> 0 GPUs', done.stdout)
        self.ok('kill', 'first')
        self.error(1, 'tide: there is no running job 1; `tide jobs --ended` lists those that ended\n', 'resume', 1)

    def test_what_is_shown(self):
        self.start('run', '-g', 2, '--name', 'it', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('it') == 'running', 'it runs')
        status = self.json('status')
        self.assertEqual((status['servers'], status['gpus'], status['gpus_busy'], status['jobs_running']), (2, 4, 2, 1))
        gpus = {f"{gpu['server']}/{gpu['index']}": (gpu['job'], gpu['vgpus']) for gpu in self.json('gpus')}
        self.assertEqual(gpus, {'node0/0': ('1', [0]), 'node0/1': ('1', [1]), 'node1/0': ('', []), 'node1/1': ('', [])})
        job = self.json('job', 1)
        self.assertEqual((job['name'], job['command'], job['physical_gpus']), ('it', 'sleep 100', 2))
        self.assertEqual([vgpu['round_trips'] for vgpu in job['vgpus']], [7, 7])
        self.assertEqual([vgpu['round_trips_per_s'] for vgpu in job['vgpus']], [2.5, 2.5])
        most_first = [{'call': 'cuMemcpyDtoH_v2', 'count': 6}, {'call': 'cuCtxSynchronize', 'count': 1}]
        self.assertEqual([vgpu['round_trip_calls'] for vgpu in job['vgpus']], [most_first] * 2)
        self.assertRegex(self.ok('job', 1), r'cuMemcpyDtoH_v2 +12 +85\.7 %\ncuCtxSynchronize +2 +14\.3 %\n$')
        for words in ('status', 'jobs', 'gpus', 'job it', 'why it', 'doctor'):
            self.assertNotEqual(self.ok(*words.split()), '')

    def test_a_decision_is_fetched_and_decided_again(self):
        self.start('run', '-g', 4, '--min', 4, '--name', 'first', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('first') == 'running', 'first runs')
        self.start('run', '-g', 2, '--min', 2, '--name', 'second', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('second') == 'queued', 'second waits')
        history = self.json('why', 'second', '--history')['decisions']
        self.assertEqual([(each['decision'], each['what']) for each in history], [(2, 'waits')])
        self.assertRegex(self.ok('why', 'first', '--history'), r'\n1 +20..-..-.. ..:..:.. starts on node0/0, node0/1')
        self.assertEqual(self.json('status')['decisions']['last'], 2)
        self.assertIn('decisions  2, recorded from 1 on', self.ok('status'))
        file = os.path.join(self.home, 'two')
        self.assertIn('decision 2 (', self.ok('snapshot', file, '--last'))
        self.assertIn('replayed: equal', self.ok('simulate', '--snapshot', file))
        told = self.json('simulate', '--snapshot', file, '--what-if', 'gpus=+2,drain=node1,without=1')
        self.assertTrue(told['equal'])
        self.assertEqual([[(each['id'], each['decision']['running']) for each in tried['otherwise']]
                          for tried in told['what_if']], [[('2', True)], [], [('2', True)]])
        one = self.json('snapshot', file, '--decision', 1)
        self.assertEqual((one['decision'], one['jobs'], one['gpus']), (1, 1, 4))
        now = self.json('snapshot', file)
        self.assertEqual((now['decision'], now['jobs']), (0, 2))
        self.assertIn('waits: needs 2 GPUs', self.ok('simulate', '--snapshot', file))
        self.error(1, 'tide: there is no decision 9; the last is 2\n', 'snapshot', file, '--decision', 9)
        with open(file, 'w', encoding='utf-8') as other:
            other.write('job_id\n')
        self.error(1, f'tide: {file}: it is no snapshot; `tide snapshot FILE` writes one\n', 'simulate', '--snapshot',
                   file)

    def test_jobs_that_share_a_gpu(self):
        for part in (0.5, 0.25):
            self.start('run', '-g', part, '--name', f'it{part}', '--', 'sleep', 100)
            self.wait_until(lambda: self.state(f'it{part}') == 'running', 'it runs')
        status = self.json('status')
        self.assertEqual((status['gpus_busy'], status['gpus_shared'], status['shared_free']), (1, 1, 0.25))
        self.assertIn('4: 1 busy, 3 free, 0.25 left of 1 that is shared\n', self.ok('status'))
        gpu = self.json('gpus')[0]
        self.assertEqual((gpu['job'], gpu['vgpus'], gpu['free_part']), ('1', [0], 0.25))
        self.assertEqual([(each['job'], each['part'], each['vgpus']) for each in gpu['shares']],
                         [('1', 0.5, [0]), ('2', 0.25, [0])])
        self.assertRegex(self.ok('gpus'), r'node0/0 .* shared +1 \(0\.5\), 2 \(0\.25\) 0\n')
        self.assertEqual([job['part'] for job in self.json('jobs')], [0.5, 0.25])
        self.assertRegex(self.ok('jobs'), r'it0\.25 +running +0\.25 of 0\.25 ')
        self.assertIn('GPUs     0.25 of one that others may share; moved 0 times\n', self.ok('job', 2))
        self.assertIn('runs on 0.5 of a GPU', self.ok('why', 1))
        self.error(1, 'tide: job 1 has 0.5 of a GPU, and that for its life; `tide resize` is for jobs with several '
                   'virtual GPUs\n', 'resize', 1, '--gpus', 1)

    def test_ended_jobs_stay_on_record(self):
        self.ok('run', '--name', 'done', '--', 'true')
        self.assertEqual(self.json('jobs'), [])
        self.assertEqual([job['state'] for job in self.json('jobs', '--ended')], ['ended'])
        self.ok('down')
        self.ok('up')
        self.assertEqual(self.json('job', 'done')['reason'], 'finished')
        self.tide('run', '--', 'true')
        self.assertEqual([job['id'] for job in self.json('jobs', '--ended')], ['1', '2'])

    def test_a_second_up_is_refused(self):
        done = self.tide('up')
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rf'a pool is running here already \({self.home}, process \d+\); use it with '
                         r'`tide run`, or stop it with `tide down`')

    def test_signals_reach_the_command(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            job = self.start('run', '--name', 'it', '--', 'sleep', 100)
            self.wait_until(lambda: self.state('it') == 'running', 'it runs')
            time.sleep(0.2)
            job.send_signal(number)
            self.assertEqual(job.wait(PATIENCE_S), 128 + number)
            self.assertIsNone(self.state('it'))

    def test_a_signal_ends_the_waiting(self):
        self.start('run', '-g', 4, '--min', 4, '--name', 'first', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('first') == 'running', 'first runs')
        second = self.start('run', '--name', 'second', '--', 'true')
        self.wait_until(lambda: self.state('second') == 'queued', 'second waits')
        second.send_signal(signal.SIGINT)
        self.assertEqual(second.wait(PATIENCE_S), 130)
        self.assertIsNone(self.state('second'))

    def test_a_killed_run_takes_its_command_along_and_frees_its_gpus(self):
        job = self.start('run', '-g', 4, '--min', 4, '--name', 'it', '--', 'sleep', 100)
        self.wait_until(lambda: 'sleep' in self.daemons().values(), 'the command runs')
        job.kill()
        self.wait_until(lambda: 'sleep' not in self.daemons().values(), 'the command is gone')
        self.ok('run', '-g', 4, '--min', 4, '--', 'true')

    def test_down_ends_jobs_and_leaves_nothing(self):
        job = self.start('run', '--name', 'it', '--', 'sleep', 100)
        self.wait_until(lambda: self.state('it') == 'running', 'it runs')
        self.assertEqual(self.ok('down'), 'pool is down\n')
        _, err = job.communicate(timeout=PATIENCE_S)
        self.assertEqual((job.returncode, err), (125, 'tide: job 1 was ended: the pool was stopped\n'))
        self.assertEqual(self.daemons(), {})
        self.assertEqual(sorted(os.listdir(self.home)), ['lock', 'node0', 'node0.log', 'node1', 'node1.log',
                                                         'pool.toml', 'scheduler.log', 'state'])

    def test_a_dead_scheduler_is_cleaned_up_after(self):
        pid = next(pid for pid, name in self.daemons().items() if name == 'tide-scheduler')
        os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: self.tide('status').returncode == 1, 'the scheduler is gone')
        self.assertIn('`tide down` cleans up', self.tide('status').stderr)
        self.ok('up', '--gpus', 1)  # does so, too
        self.assertEqual(self.json('status')['gpus'], 1)

    def test_a_job_outlives_its_scheduler(self):
        job = self.start('run', '--name', 'it', '--', 'sleep', 4)
        self.wait_until(lambda: self.state('it') == 'running', 'it runs')
        pid = next(pid for pid, name in self.daemons().items() if name == 'tide-scheduler')
        with open(f'/proc/{pid}/cmdline', 'rb') as file:
            command = file.read().split(b'\0')[:-1]
        os.kill(pid, signal.SIGKILL)
        again = subprocess.Popen(command, env=self.env, stderr=subprocess.DEVNULL)
        self.addCleanup(again.wait)
        self.addCleanup(again.kill)
        self.assertEqual(job.wait(PATIENCE_S), 0, 'it went on and told the new scheduler')
        self.wait_until(lambda: self.json('jobs', '--ended')[0]['reason'] == 'finished', 'its end is on record')

    def test_env_makes_a_shell_a_job(self):
        script = f'eval "$({TIDE} env -g 2)" && echo $TIDE_JOB $TIDE_VGPUS && {TIDE} jobs --json'
        done = subprocess.run(['bash', '-c', script], env=self.env, capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False)
        first, jobs = done.stdout.split('\n', 1)
        self.assertEqual(first, '1 2', done.stderr)
        self.assertEqual(json.loads(jobs)[0]['state'], 'running')
        self.wait_until(lambda: self.json('jobs') == [], 'the job ends with the shell')
        self.error(1, 'tide: a job has 1 to 64 GPUs, not 65\n', 'env', '-g', 65)


if __name__ == '__main__':
    unittest.main(verbosity=2)
