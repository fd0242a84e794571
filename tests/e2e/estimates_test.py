"""Jobs start by what they are expected to need, where pool.toml says so."""

import os
import unittest

from pool import PoolTest, job_program, wait_until

POOL = """[pool]
listen = "127.0.0.1:0"

[policy]
order = "%s"
"""


class Estimates(PoolTest):
    def write(self, order):
        path = os.path.join(self.pool.home, order + '.toml')
        with open(path, 'w') as file:
            file.write(POOL % order)
        return path

    def state(self, name):
        return (self.pool.jobs_by_name().get(name) or {}).get('state')

    def start(self, name, steps, *options):
        ballast = [job_program('ballast'), '--mib', 16, '--share', 20, '--steps', steps, '--step-ms', 20]
        job = self.pool.start('--name', name, *options, '--', *ballast)
        wait_until(lambda: self.state(name), name + ' is there')
        return job

    def test_the_shorter_starts_first(self):
        self.pool.up(1, 1, '--config', self.write('estimates'))
        self.start('first', 9000)
        wait_until(lambda: self.state('first') == 'running', 'it runs')
        slow = self.start('slow', 3, '--estimate', '3h')
        self.start('quick', 9000, '--estimate', '5m')
        self.assertIn('expected about 3 h more on all its GPUs, by its --estimate',
                      self.expect_ok(self.pool.tide('job', 'slow')).out)
        expected = self.pool.job('quick')['expected']
        self.assertEqual((expected['by'], expected['left_ms']), ('user', 300_000), expected)
        self.assertIn('one job that waits in its queue is before it', self.pool.tide('why', 'slow').out)
        self.expect_ok(self.pool.tide('kill', 'first'))
        wait_until(lambda: self.state('quick') == 'running', 'the shorter runs')
        self.assertEqual(self.state('slow'), 'queued')
        self.assertNotEqual(self.pool.job('quick')['expected']['ends_ms'], 0)
        dry = self.expect_ok(self.pool.tide('config', 'apply', self.write('submission'), '--dry-run')).out
        self.assertIn('order', dry)
        wrong = self.pool.tide('config', 'check', self.write('fastest'))
        self.assertIn("5:9: 'fastest' is no order (submission or estimates)", wrong.both)
        self.expect_ok(self.pool.tide('kill', 'quick'))
        self.assertEqual(slow.wait(), 0, slow.err() + self.pool.logs())


if __name__ == '__main__':
    unittest.main(verbosity=2)
