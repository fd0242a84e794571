"""A deadline is promised or refused, and the promise is kept: others are suspended for it, and come back."""

import time
import unittest

from pool import PoolTest, job_program, wait_until


class Deadlines(PoolTest):
    def states(self):
        return {name: job['state'] for name, job in self.pool.jobs_by_name().items()}

    def ballast(self, steps):
        return [job_program('ballast'), '--mib', 16, '--share', 20, '--steps', steps, '--step-ms', 20]

    def expect_refused(self, text, *options):
        refused = self.pool.run(*options, '--', 'true')
        self.assertNotEqual(refused.status, 0, refused.out)
        self.assertRegex(refused.err, text)

    def test_who_is_due_is_done_in_time(self):
        self.pool.up(1)
        self.expect_refused('--deadline needs --estimate', '--deadline', '2h')
        self.expect_refused('has passed', '--estimate', '1h', '--deadline', '2020-01-01T10:00Z')
        self.expect_refused("not 'soon'", '--estimate', '1h', '--deadline', 'soon')
        self.expect_refused("not '2099-02-30T10:00Z'", '--estimate', '1h', '--deadline', '2099-02-30T10:00Z')
        self.expect_refused('cannot be promised.*The earliest that could be is 2',
                            '--estimate', '1h', '--deadline', '30m')
        other = self.pool.start('--name', 'other', '--', *self.ballast(600))
        wait_until(lambda: self.states().get('other') == 'running', 'the other one runs')
        begun = time.time()
        due = self.pool.start('--name', 'due', '--estimate', '20s', '--deadline', '30s', '--', *self.ballast(100))
        wait_until(lambda: self.states().get('other') == 'suspended', 'the other one makes room', 30)
        said = self.expect_ok(self.pool.tide('why', 'due')).out
        self.assertRegex(said, 'promised: done by .* if it runs no longer than 20 s')
        job = self.pool.job('due')
        self.assertEqual((job['estimate_ms'], job['promise']['state']), (20000, 'kept'), job)
        self.assertRegex(self.expect_ok(self.pool.tide('job', 'due')).out, r'deadline .* will be met')
        self.assertEqual(due.wait(), 0, due.out() + due.err() + self.pool.logs())
        self.assertLess(time.time() - begun, 30)
        self.assertEqual(self.pool.job('due')['promise']['state'], 'met')
        self.assertEqual(other.wait(), 0, other.err() + self.pool.logs())


if __name__ == '__main__':
    unittest.main(verbosity=2)
