"""Jobs start by what they are expected to need, where pool.toml says so."""

import os
import unittest

from pool import PoolTest, train, wait_until

POOL = """[pool]
listen = "127.0.0.1:0"

[policy]
order = "%s"
"""


class Estimates(PoolTest):
    def write(self, order):
        path = os.path.join(self.pool.home, 'estimates.toml')
        with open(path, 'w') as file:
            file.write(POOL % order)
        return path

    def test_the_shorter_starts_first(self):
        self.pool.up(1, 1, '--config', self.write('estimates'))
        first = self.pool.start('--name', 'first', '--', *train('--steps', 3000, '--step-ms', 50))
        wait_until(lambda: first.steps() > 1, 'it trains')
        slow = self.pool.start('--name', 'slow', '--estimate', '3h', '--', *train('--steps', 3))
        wait_until(lambda: self.pool.job('slow'), 'it waits')
        quick = self.pool.start('--name', 'quick', '--estimate', '5m', '--', *train('--steps', 3000, '--step-ms', 50))
        wait_until(lambda: self.pool.job('quick'), 'it waits, too')
        self.assertIn('expected about 3 h more on all its GPUs, by its --estimate',
                      self.expect_ok(self.pool.tide('job', 'slow')).out)
        job = self.pool.job('quick')
        self.assertEqual((job['expected']['by'], job['expected']['left_ms']), ('user', 300_000), job)
        self.assertIn('one job that waits in its queue is before it', self.pool.tide('why', 'slow').out)
        self.expect_ok(self.pool.tide('kill', 'first'))
        wait_until(lambda: quick.steps() > 0, 'the shorter trains')
        self.assertEqual(self.pool.job('slow')['state'], 'queued')
        self.assertNotEqual(self.pool.job('quick')['expected']['ends_ms'], 0)
        self.expect_ok(self.pool.tide('kill', 'quick'))
        self.assertEqual(slow.wait(), 0, slow.err() + self.pool.logs())


if __name__ == '__main__':
    unittest.main(verbosity=2)
