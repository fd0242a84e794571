"""The pool's side of suspending: who gets the GPUs meanwhile, whose turn it is, and that a program notices nothing."""

import json
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
