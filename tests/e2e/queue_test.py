"""Several jobs share a pool: they wait when it is full, give way, and grow again."""

import unittest

from pool import PoolTest, train, wait_until

LONG = ('--steps', 3000, '--step-ms', 50)


class Queue(PoolTest):
    def state(self, name):
        return self.pool.jobs_by_name().get(name, {}).get('state')

    def gpus_of(self, name):
        return self.pool.job(name)['physical_gpus']

    def start_training(self, name, gpus, least, *options):
        job = self.pool.start('-g', gpus, '--min', least, '--name', name, '--', *train(*(options or LONG)))
        return job

    def test_a_job_that_does_not_fit_waits_and_says_why(self):
        self.pool.up(gpus=2)
        first = self.start_training('first', 2, 2)
        wait_until(lambda: first.steps() > 1, 'the first job trains')
        second = self.start_training('second', 1, 1, '--steps', 3)
        wait_until(lambda: self.state('second') == 'queued', 'the second job is queued')
        self.assertRegex(self.pool.tide('why', 'second').out, r'(?i)gpu')
        wait_until(lambda: 'wait' in second.err().lower() or 'queue' in second.err().lower(), 'it says that it waits')
        self.assertEqual(second.steps(), 0)
        self.expect_ok(self.pool.tide('kill', 'first'))
        self.assertNotEqual(first.wait(), 0)
        self.assertEqual(second.wait(), 0, second.err())
        self.assertEqual(second.steps(), 3)
        self.expect_nothing_left()

    def test_who_waits_goes_on_waiting_when_the_scheduler_is_restarted(self):
        self.pool.up(gpus=1)
        first = self.start_training('first', 1, 1, '--steps', 3000, '--step-ms', 50, '--gpus', 1)
        wait_until(lambda: first.steps() > 1, 'the first job trains')
        second = self.start_training('second', 1, 1, '--steps', 3, '--gpus', 1)
        wait_until(lambda: self.state('second') == 'queued', 'the second job is queued')
        before = self.pool.job('second')['id']
        self.replace_scheduler()
        wait_until(lambda: self.state('first') == 'running', 'the first one is known again')
        seen = first.steps()
        wait_until(lambda: first.steps() > seen, 'it trains on')
        self.assertTrue(second.running(), second.err())
        self.assertEqual(self.pool.job('second')['id'], before)
        self.assertEqual(self.state('second'), 'queued')
        self.expect_ok(self.pool.tide('kill', 'first'))
        self.assertNotEqual(first.wait(), 0)
        self.assertEqual(second.wait(), 0, second.err())
        self.assertEqual(second.steps(), 3)

    def test_an_arrival_shrinks_and_an_end_grows(self):
        self.pool.up(gpus=4)
        expected = self.undisturbed('--steps', 220)
        wide = self.start_training('wide', 4, 1, '--steps', 220, '--step-ms', 60)
        wait_until(lambda: wide.steps() > 2, 'the wide job trains')
        self.assertEqual(self.gpus_of('wide'), 4)
        narrow = self.start_training('narrow', 2, 2, '--steps', 40, '--step-ms', 50)
        wait_until(lambda: narrow.steps() > 1, 'the narrow job trains although the pool was full')
        self.assertEqual(self.gpus_of('narrow'), 2)
        self.assertEqual(self.gpus_of('wide'), 2)
        self.assertEqual(narrow.wait(), 0, narrow.err())
        wait_until(lambda: not wide.running() or self.gpus_of('wide') == 4, 'the wide job grows again')
        self.assertTrue(wide.running(), 'it ended before it could grow')
        self.assertEqual(wide.wait(), 0, wide.err())
        self.assertEqual(wide.out(), expected, 'the job noticed')
        self.expect_nothing_left()

    def test_three_jobs_at_once_each_get_their_results(self):
        self.pool.up(gpus=4)
        alone = self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 25))).out
        jobs = [self.start_training(f'job{i}', 2, 1, '--steps', 25) for i in range(3)]
        for job in jobs:
            self.assertEqual(job.wait(), 0, job.err())
            self.assertEqual(job.out(), alone)
        self.expect_nothing_left()

    def test_a_killed_client_returns_its_gpus_at_once(self):
        self.pool.up(gpus=2)
        first = self.start_training('first', 2, 2)
        wait_until(lambda: first.steps() > 1, 'the first job trains')
        first.process.kill()
        self.assertEqual(self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', *train('--steps', 3))).status, 0)
        wait_until(lambda: not self.pool.pids('tide-worker'), 'its workers are gone')
        wait_until(lambda: not self.pool.processes('train_digits'), 'its command is gone')


if __name__ == '__main__':
    unittest.main(verbosity=2)
