"""The pool's side of suspending: who gets the GPUs meanwhile, whose turn it is, and that a program notices nothing."""

import json
import os
import signal
import subprocess
import time
import unittest

from pool import PATIENCE_S, PoolTest, job_program, train, wait_until


class Suspends(PoolTest):
    def state(self, name):
        return self.pool.job(name)['state']

    def places(self, name):
        return [vgpu['gpu'] for vgpu in self.pool.job(name)['vgpus']]

    def busy(self):
        return {f"{gpu['server']}/{gpu['index']}": gpu['job'] for gpu in self.pool.json('gpus') if gpu['job']}

    def expect_steps(self, job, count=2):
        seen = job.steps()
        wait_until(lambda: job.steps() >= seen + count or not job.running(), 'it goes on', 60)
        self.assertTrue(job.running(), job.err() + self.pool.logs())

    def suspend(self, name):
        report = json.loads(self.expect_ok(self.pool.tide('suspend', name, '--json')).out)
        self.assertEqual((report['state'], report['gpus_after']), ('suspended', 0))
        return report

    def resume(self, name, *more):
        return json.loads(self.expect_ok(self.pool.tide('resume', name, '--json', *more)).out)

    def commands(self, name):
        return sum(vgpu.get('commands', 0) for vgpu in self.pool.job(name)['vgpus'])

    def blocker(self, gpus, name):
        job = self.pool.start('-g', gpus, '--min', gpus, '--name', name, '--', 'sleep', PATIENCE_S)
        wait_until(lambda: self.pool.job(name) and self.state(name) == 'running', name + ' runs')
        return job

    def test_training_goes_on_at_another_server_and_notices_nothing(self):
        self.pool.up(gpus=2, servers=2)
        steps = ('--steps', 100)
        expected = self.expect_ok(self.pool.run('-g', 1, '--', *train(*steps))).out
        job = self.pool.start('-g', 1, '--name', 'it', '--', *train(*steps, '--step-ms', 60))
        visited = set()
        for number in range(2):
            self.expect_steps(job, 5)
            server = self.places('it')[0].split('/')[0]
            visited.add(server)
            self.assertEqual(self.suspend('it')['vgpus'], 1)
            self.assertEqual(self.places('it'), [f'{server}/parked'])
            self.assertEqual(self.busy(), {})
            self.assertEqual(self.suspend('it')['vgpus'], 0, 'it is suspended')
            time.sleep(0.5)  # what it knew already it may print
            seen = job.steps()
            both = self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', *train('--steps', 5)))
            self.assertIn('test accuracy', both.out)
            self.assertEqual(job.steps(), seen, 'it went on without a GPU')
            # Who sits where it was sends it to the other server.
            other = self.blocker(1, f'blocker{number}')
            if self.places(f'blocker{number}')[0].split('/')[0] != server:
                self.expect_ok(self.pool.tide('migrate', f'blocker{number}', f'{server}/0'))
            report = self.resume('it')
            self.assertEqual((report['state'], report['queued'], report['gpus_after']), ('running', '', 1))
            self.assertNotEqual(self.places('it')[0].split('/')[0], server)
            self.expect_ok(self.pool.tide('kill', f'blocker{number}'))
            other.wait()
        self.assertEqual(len(visited), 2)
        self.assertEqual(job.wait(), 0, job.err() + self.pool.logs())
        self.assertEqual(job.out(), expected, 'the job noticed')
        self.assertEqual(job.err(), '')
        self.expect_nothing_left()

    def test_two_virtual_gpus_that_copy_to_each_other(self):
        self.pool.up(gpus=2, servers=2)
        job = self.pool.start('-g', 2, '--min', 2, '--name', 'it', '--', job_program('peers'), '--seconds', 10)
        wait_until(lambda: 'a round' in job.out() or not job.running(), 'a round', 60)
        for _ in range(2):
            self.assertEqual(self.suspend('it')['vgpus'], 2)
            self.assertTrue(all(place.endswith('/parked') for place in self.places('it')), self.places('it'))
            self.assertEqual(self.busy(), {})
            self.assertEqual(self.resume('it')['vgpus'], 2)
            before = self.commands('it')
            wait_until(lambda: self.commands('it') > before, 'it goes on', 60)
        self.assertEqual(job.wait(), 0, job.out() + job.err() + self.pool.logs())
        self.expect_nothing_left()

    def test_who_is_resumed_waits_for_its_turn(self):
        self.pool.up(gpus=1)
        expected = self.expect_ok(self.pool.run('-g', 1, '--', *train('--steps', 100))).out
        job = self.pool.start('-g', 1, '--name', 'it', '--', *train('--steps', 100, '--step-ms', 60))
        self.expect_steps(job)
        waiting = self.pool.start('-g', 1, '--name', 'next', '--', 'sleep', PATIENCE_S)
        wait_until(lambda: self.pool.job('next') and self.state('next') == 'queued', 'next waits')
        self.suspend('it')
        wait_until(lambda: self.state('next') == 'running', 'next has its GPU')
        report = self.resume('it')
        self.assertEqual((report['state'], report['gpus_after']), ('suspended', 0))
        self.assertIn('needs 1 GPU', report['queued'])
        self.assertIn('waits to run again: ' + report['queued'], self.pool.tide('why', 'it').out)
        waits = subprocess.Popen([self.pool.tide_path, 'resume', 'it', '--wait'], env=self.pool.env,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.expect_ok(self.pool.tide('kill', 'next'))
        out, _ = waits.communicate(timeout=PATIENCE_S)
        self.assertEqual(waits.returncode, 0)
        self.assertRegex(out, r'^job \d+: 0 -> 1 GPU, 1 vGPU moved, ')
        waiting.wait()
        self.assertEqual(job.wait(), 0, job.err() + self.pool.logs())
        self.assertEqual(job.out(), expected, 'the job noticed')

    def test_kill_while_suspended_leaves_nothing(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 2, '--name', 'it', '--', *train('--steps', 10_000, '--step-ms', 50))
        self.expect_steps(job)
        self.suspend('it')
        shown = self.pool.job('it')['vgpus']
        self.assertGreater(sum(vgpu['kept_in_memory'] + vgpu['kept_on_disk'] for vgpu in shown), 0, shown)
        self.expect_ok(self.pool.tide('kill', 'it'))
        self.assertNotEqual(job.wait(), 0, job.err())  # 125, or the program's own where it hears of it first
        wait_until(lambda: not self.pool.pids('tide-worker'), 'no worker is left', 20)
        self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', *train('--steps', 3)))
        self.expect_nothing_left()

    def test_the_scheduler_is_killed_meanwhile(self):
        self.pool.up(gpus=2)
        expected = self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 100))).out
        job = self.pool.start('-g', 2, '--name', 'it', '--', *train('--steps', 100, '--step-ms', 60))
        self.expect_steps(job)
        self.suspend('it')
        self.restart_scheduler()
        self.assertEqual(self.state('it'), 'suspended')
        self.assertEqual(self.resume('it')['vgpus'], 2)
        self.expect_steps(job)
        asked = subprocess.Popen([self.pool.tide_path, 'suspend', 'it'], env=self.pool.env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.pool.job('it')['suspended'], 'it is being suspended')
        self.restart_scheduler()
        asked.wait(PATIENCE_S)
        wait_until(lambda: self.state('it') == 'suspended', 'the next one goes on with it')
        self.assertEqual(self.busy(), {})
        self.resume('it')
        self.assertEqual(job.wait(), 0, job.err() + self.pool.logs())
        self.assertEqual(job.out(), expected, 'the job noticed')

    def restart_scheduler(self):
        self.replace_scheduler()
        wait_until(lambda: len(self.pool.json('gpus')) == 2, 'the agent is back')

    def test_a_job_that_has_not_used_its_gpus_is_suspended_too(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 2, '--min', 2, '--name', 'it', '--', 'sleep', 4)
        wait_until(lambda: self.pool.job('it') and self.state('it') == 'running', 'it runs')
        self.suspend('it')
        self.assertEqual(self.busy(), {})
        self.resume('it')
        self.assertEqual(len(self.busy()), 2)
        self.suspend('it')
        self.assertEqual(job.wait(), 0, 'its end is not held up')
        self.assertEqual(self.pool.json('jobs'), [])
        self.expect_nothing_left()


class Replicas(PoolTest):
    """What several virtual GPUs, or processes, of a job have alike is kept once."""

    def kept(self):
        vgpus = self.pool.job('it')['vgpus']
        return [sum(vgpu[name] for vgpu in vgpus) / 2**20 for name in ('kept_in_memory', 'kept_on_disk', 'kept_apart')]

    def test_equal_weights_are_kept_once_and_come_back(self):
        self.pool.up(4, 1)
        job = self.pool.start('-g', 4, '--min', 4, '--name', 'it', '--', job_program('replicas'), '--gpus', 4, '--mib',
                              32, '--steps', 400, '--kernels', 2, '--work', 500)
        wait_until(lambda: self.pool.job('it') and sum(vgpu.get('commands', 0) for vgpu in self.pool.job('it')['vgpus'])
                   > 2000 or not job.running(), 'it works', 60)
        self.expect_ok(self.pool.tide('suspend', 'it'))
        memory, disk, apart = self.kept()
        print(f'four replicas of 32 MiB: {memory:.1f} MiB in memory, {apart:.1f} if equal chunks were not kept once')
        self.assertEqual(disk, 0)
        self.assertGreater(apart, 4 * 32)
        self.assertGreater(memory, 32)
        self.assertLess(memory, 32 + (apart - 4 * 30), 'the weights of one, and what is no weight')
        self.assertIn(' if equal chunks were not kept once)', self.pool.tide('job', 'it').out)
        self.expect_ok(self.pool.tide('resume', 'it'))
        self.assertEqual(job.wait(), 0, job.out() + job.err() + self.pool.logs())
        self.assertIn('replicas: ok', job.out())
        self.expect_nothing_left()

    def test_a_keeper_that_is_killed_takes_nothing_of_the_others_with_it(self):
        self.pool.up(1, 1)
        # Three processes, with the same 32 MiB; the last one changes them.
        ballast = f'{job_program("ballast")} --mib 32 --step-ms 30 --steps 100 --share'
        each = '; '.join(f'({ballast} {share}; echo of {share} $?) & sleep 0.1' for share in (0, 0.1, 20))
        job = self.pool.start('-g', 1, '--name', 'it', '--', 'sh', '-c', each + '; wait')
        wait_until(lambda: job.out().count('step ') > 3 or not job.running(), 'they work', 60)
        self.expect_ok(self.pool.tide('suspend', 'it'))
        before = self.kept()
        self.assertLess(before[0], 2.2 * 32, before)
        self.assertGreaterEqual(before[2], 3 * 32, before)
        os.kill(self.pool.job('it')['vgpus'][0]['worker_pids'][0], signal.SIGKILL)
        wait_until(lambda: len(self.pool.job('it')['vgpus'][0]['worker_pids']) == 2, 'its end is seen')
        self.assertGreater(self.kept()[0], 32)
        self.expect_ok(self.pool.tide('resume', 'it'))
        self.assertEqual(job.wait(), 0, job.out() + job.err() + self.pool.logs())
        self.assertEqual(job.out().count('ballast: ok'), 2, job.out() + job.err())
        self.expect_nothing_left()


class WithoutRoom(PoolTest):
    """For one of two virtual GPUs, and no disk."""

    environment = {'TIDE_PARK_MEMORY_MIB': '4', 'TIDE_PARK_DIR': '/proc/nowhere'}

    def test_what_is_parked_comes_back_and_the_job_runs_on(self):
        self.pool.up(gpus=2)
        expected = self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 100))).out
        job = self.pool.start('-g', 2, '--min', 2, '--name', 'it', '--', *train('--steps', 100, '--step-ms', 60))
        wait_until(lambda: job.steps() > 2 or not job.running(), 'it trains', 60)
        waiting = self.pool.start('-g', 1, '--name', 'next', '--', 'true')
        for _ in range(2):
            result = self.pool.tide('suspend', 'it')
            self.assertEqual(result.status, 1, result)
            self.assertIn('was not suspended, it runs on: virtual GPU 1 could not be kept on node0: ', result.err)
            wait_until(lambda: all(not vgpu['gpu'].endswith('parked') for vgpu in self.pool.job('it')['vgpus']),
                       'it is back')
            self.assertTrue(waiting.running(), 'somebody else got a GPU of it')
            seen = job.steps()
            wait_until(lambda: job.steps() > seen + 2 or not job.running(), 'it goes on', 60)
        self.assertEqual(job.wait(), 0, job.err() + self.pool.logs())
        self.assertEqual(job.out(), expected, 'the job noticed')
        self.assertEqual(waiting.wait(), 0)


class OverUcx(Suspends):
    """Once more with the transport between hosts; but what does not depend on it."""

    environment = {'TIDE_TRANSPORT': 'ucx'}
    test_a_job_that_has_not_used_its_gpus_is_suspended_too = test_who_is_resumed_waits_for_its_turn = None
    test_the_scheduler_is_killed_meanwhile = None


if __name__ == '__main__':
    unittest.main(verbosity=2)
