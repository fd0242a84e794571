"""A job that does nothing gives its GPUs back, and has some again with its next call."""

import subprocess
import unittest

from pool import PoolTest, job_program, wait_until


class Idle(PoolTest):
    def state(self):
        return (self.pool.job('sleeper') or {}).get('state')

    def start_sleeper(self, step_ms, seconds, *options):
        """A job that writes a little of its memory now and then, and checks every word at its end."""
        return self.pool.start('-g', 1, '--name', 'sleeper', '--idle-return', '500ms', *options, '--',
                               job_program('ballast'), '--mib', 64, '--step-ms', step_ms, '--seconds', seconds)

    def test_while_it_sleeps_another_job_has_its_gpu(self):
        self.pool.up(gpus=1)
        sleeper = self.start_sleeper(4000, 5)
        wait_until(lambda: self.state() == 'suspended', 'it gave its GPU back', 20)
        said = self.expect_ok(self.pool.tide('why', 'sleeper')).out
        self.assertIn('because it did nothing', said)
        self.assertIn('goes on by itself', said)
        other = self.expect_ok(self.pool.run('-g', 1, '--', job_program('ballast'), '--mib', 64, '--seconds', 0.5))
        self.assertIn('ballast: ok', other.out)
        self.assertEqual(self.state(), 'suspended')
        self.assertEqual(sleeper.wait(), 0, sleeper.out() + sleeper.err() + self.pool.logs())
        self.assertRegex(sleeper.out(), 'digest [0-9a-f]{16}\nballast: ok')
        self.expect_nothing_left()

    def test_without_room_it_queues_and_says_so(self):
        self.pool.up(gpus=1)
        sleeper = self.start_sleeper(3000, 4)
        wait_until(lambda: self.state() == 'suspended', 'it gave its GPU back', 20)
        other = self.pool.start('-g', 1, '--name', 'other', '--', job_program('ballast'), '--mib', 64,
                                '--until-told', 1, stdin=subprocess.PIPE)
        wait_until(lambda: 'waits to run again' in self.pool.tide('why', 'sleeper').out, 'it waits for a GPU', 20)
        self.assertTrue(sleeper.running())
        other.process.stdin.close()
        self.assertEqual(other.wait(), 0, other.err())
        self.assertEqual(sleeper.wait(), 0, sleeper.out() + sleeper.err() + self.pool.logs())
        self.assertIn('ballast: ok', sleeper.out())

    def test_a_process_that_begins_wakes_the_job(self):
        self.pool.up(gpus=1)
        saxpy = job_program('ballast') + ' --mib 32 --seconds 0.2'
        job = self.pool.start('-g', 1, '--name', 'sleeper', '--idle-return', '400ms', '--', 'sh', '-c',
                              f'{saxpy} && sleep 3 && {saxpy}')
        wait_until(lambda: self.state() == 'suspended', 'it gave its GPU back', 20)
        self.assertEqual(job.wait(), 0, job.out() + job.err() + self.pool.logs())
        self.assertEqual(job.out().count('ballast: ok'), 2, job.out())

    def test_a_process_that_begins_waits_where_there_is_no_room(self):
        self.pool.up(gpus=1)
        ballast = job_program('ballast')
        job = self.pool.start('-g', 1, '--name', 'sleeper', '--idle-return', '400ms', '--', 'sh', '-c',
                              f'sleep 3 && {ballast} --mib 32 --seconds 0.2')
        wait_until(lambda: self.state() == 'suspended', 'it gave its GPU back', 20)
        other = self.pool.run('-g', 1, '--', ballast, '--mib', 32, '--seconds', 5)
        self.assertEqual(other.status, 0, other)
        self.assertEqual(job.wait(), 0, job.out() + job.err() + self.pool.logs())
        self.assertIn('ballast: ok', job.out())

    def test_who_works_keeps_its_gpu(self):
        self.pool.up(gpus=1)
        busy = self.start_sleeper(50, 3)
        wait_until(lambda: busy.steps() > 1, 'it works', 20)
        while busy.running():
            job = self.pool.job('sleeper')
            self.assertIn(job['state'], ('running', 'ended'), job)
        self.assertEqual(busy.wait(), 0, busy.err())
        self.assertEqual(self.pool.job('sleeper')['moves'], 0)

    def test_a_restarted_scheduler_brings_it_back(self):
        self.pool.up(gpus=1)
        sleeper = self.start_sleeper(4000, 5)
        wait_until(lambda: self.state() == 'suspended', 'it gave its GPU back', 20)
        self.replace_scheduler()
        self.assertEqual(sleeper.wait(), 0, sleeper.out() + sleeper.err() + self.pool.logs())
        self.assertIn('ballast: ok', sleeper.out())

    def test_bad_times_are_refused(self):
        for word in ('soon', '-1s', '0s', '5 min', '10parsecs', ''):
            result = self.pool.run('--idle-return', word, '--', 'true')
            self.assertEqual(result.status, 2, (word, result))
            self.assertIn('10m', result.err, word)


class OverUcx(Idle):
    """Once more with the transport between hosts; but what does not depend on it."""

    environment = {'TIDE_TRANSPORT': 'ucx'}
    test_bad_times_are_refused = test_without_room_it_queues_and_says_so = None
    test_a_process_that_begins_waits_where_there_is_no_room = None
    test_who_works_keeps_its_gpu = test_a_restarted_scheduler_brings_it_back = None


if __name__ == '__main__':
    unittest.main(verbosity=2)
