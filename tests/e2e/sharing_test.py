"""Processes of a job share memory and events, and nobody else does."""

import os
import signal
import threading
import unittest

from pool import PoolTest, job_program, wait_until


class Sharing(PoolTest):
    def sharing(self, gpus, *mode, transport=None):
        env = ('env', f'TIDE_TRANSPORT={transport}') if transport else ()
        return self.pool.run('-g', gpus, '--', *env, job_program('sharing'), *mode)

    def expect_verdict(self, result, *names):
        self.expect_ok(result)
        self.assertEqual(sorted(result.out.split('\n')), sorted([''] + [f'{name}: ok' for name in names]))

    def test_two_processes_take_turns_on_each_gpu(self):
        self.pool.up(gpus=2)
        self.expect_verdict(self.sharing(2, 'exchange'), *['partner', 'late'] * 2, 'exchange')
        self.expect_nothing_left()

    def test_without_common_memory(self):
        self.pool.up(gpus=1)
        self.expect_verdict(self.sharing(1, 'exchange', transport='sim'), 'partner', 'late', 'exchange')

    def test_an_owner_dies(self):
        self.pool.up(gpus=1)
        self.expect_verdict(self.sharing(1, 'death'), 'death')
        self.expect_nothing_left()

    def begin_turns(self):
        self.pool.up(gpus=2, servers=2)
        job = self.pool.start('-g', 1, '--name', 'turns', '--', job_program('sharing'), 'turns', self.end_path(), 20)
        wait_until(lambda: job.steps() >= 2 or not job.running(), 'they take turns', 60)
        return job

    def end_path(self):
        return os.path.join(self.pool.home, 'end')

    def go_on(self, job):
        seen = job.steps()
        wait_until(lambda: job.steps() >= seen + 2 or not job.running(), 'they go on', 60)
        self.assertTrue(job.running(), job.out() + job.err() + self.pool.logs())

    def end_turns(self, job):
        with open(self.end_path(), 'w'):
            pass
        self.assertEqual(job.wait(), 0, job.out()[-500:] + job.err() + self.pool.logs())
        said = ''.join(f'step {n + 1}\n' for n in range(job.steps() + 1))
        said += 'turner: ok\nlate: ok\nturns: ok\n'
        self.assertEqual(sorted(job.out().split('\n')), sorted(said.split('\n')))
        self.assertEqual(job.err(), '')
        self.expect_nothing_left()

    def elsewhere(self):
        here = self.pool.job('turns')['vgpus'][0]['gpu']
        names = [f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus')]
        return next(name for name in names if name != here)

    def test_processes_that_share_are_moved_and_suspended_as_one(self):
        job = self.begin_turns()
        for _ in range(3):
            report = self.pool.json('migrate', 'turns:0', self.elsewhere())
            self.assertEqual(report['vgpus'], 1, report)
            self.go_on(job)
        for _ in range(2):
            self.expect_ok(self.pool.tide('suspend', 'turns'))
            self.assertIn('parked', self.pool.job('turns')['vgpus'][0]['gpu'])
            self.expect_ok(self.pool.tide('resume', 'turns'))
            self.go_on(job)
        self.end_turns(job)

    def test_where_the_target_dies_they_run_on(self):
        job = self.begin_turns()
        target = self.elsewhere()
        before = set(self.pool.pids('tide-worker'))
        moving = threading.Thread(target=lambda: self.pool.tide('migrate', 'turns:0', target))
        moving.start()
        there = wait_until(lambda: set(self.pool.pids('tide-worker')) - before, 'the workers that receive it', 60)
        os.kill(min(there), signal.SIGKILL)
        moving.join()
        self.assertNotEqual(self.pool.job('turns')['vgpus'][0]['gpu'], target)
        self.go_on(job)
        self.end_turns(job)

    def test_another_job_gets_nothing(self):
        self.pool.up(gpus=2)
        path = os.path.join(self.pool.home, 'handles')
        owner = self.pool.start('-g', 1, '--name', 'owner', '--', job_program('sharing'), 'publish', path)
        wait_until(lambda: os.path.exists(path), 'the handles are there')
        self.expect_verdict(self.sharing(1, 'foreign', path), 'foreign')
        here = self.pool.job('owner')['vgpus'][0]['gpu']
        names = [f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus')]
        target = next(name for name in names if name != here)
        self.expect_ok(self.pool.tide('migrate', 'owner:0', target))
        self.expect_verdict(self.sharing(1, 'foreign', path), 'foreign')
        os.unlink(path)
        self.assertEqual(owner.wait(), 0, owner.err())
        self.assertEqual(owner.out(), 'publish: ok\n')
        self.expect_nothing_left()


if __name__ == '__main__':
    unittest.main(verbosity=2)
