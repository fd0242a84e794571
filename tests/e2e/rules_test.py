"""What people say of their jobs: priority, class, minimum runtime, powers of two."""

import os
import unittest

from pool import PoolTest, train, wait_until

LONG = ('--steps', 3000, '--step-ms', 50)
RULES = """[pool]
listen = "127.0.0.1:0"

[policy]
min_runtime = "1s"
disturbances_per_hour = 3
idle_return = "7m"

[[queue]]
name = "people"
class = "interactive"
min_runtime = "10m"

[[queue]]
name = "default"
"""


class Rules(PoolTest):
    def up(self, gpus):
        path = os.path.join(self.pool.home, 'rules.toml')
        with open(path, 'w') as file:
            file.write(RULES)
        self.pool.up(gpus, 1, '--config', path)

    def state(self, name):
        return self.pool.jobs_by_name().get(name, {}).get('state')

    def test_a_higher_priority_takes_and_gives_back(self):
        self.up(gpus=2)
        expected = self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 130))).out
        low = self.pool.start('-g', 2, '--min', 2, '--name', 'low', '--', *train('--steps', 130, '--step-ms', 30))
        wait_until(lambda: low.steps() > 2, 'it trains')
        high = self.pool.start('-g', 1, '--priority', 5, '--min-runtime', '10m', '--name', 'high', '--', *train(*LONG))
        wait_until(lambda: high.steps() > 2, 'the higher priority trains')
        job = self.pool.job('low')
        self.assertEqual((job['state'], job['disturbed'], job['priority']), ('suspended', 1, 0), job)
        self.assertEqual(job['class'], 'batch')
        self.assertGreaterEqual(job['useful_ms'], 1000, 'it had its minimum')
        job = self.pool.job('high')
        self.assertEqual((job['priority'], job['min_runtime_ms']), (5, 600_000), job)
        self.assertIn('min_runtime', job['spared'])
        highest = self.pool.start('-g', 2, '--min', 2, '--priority', 9, '--name', 'highest', '--', *train('--steps', 3))
        why = lambda: self.pool.tide('why', 'highest').out
        wait_until(lambda: 'not to be disturbed now' in why(), 'it waits for who is spared')
        self.expect_ok(self.pool.tide('kill', 'high'))
        self.assertEqual(highest.wait(), 0, highest.err())
        self.assertEqual(low.wait(), 0, low.err())
        self.assertEqual(low.out(), expected, 'the job noticed')
        self.assertNotEqual(high.wait(), 0)
        self.expect_nothing_left()

    def test_powers_of_two_and_classes(self):
        self.up(gpus=4)
        even = self.pool.start('-g', 4, '--min', 1, '--powers-of-two', '--name', 'even', '--', *train(*LONG))
        wait_until(lambda: even.steps() > 1, 'it trains')
        refused = self.pool.tide('resize', 'even', '--gpus', 3)
        self.assertNotEqual(refused.status, 0)
        self.assertIn('--powers-of-two: it can have 1, 2 or 4 physical GPUs, not 3', refused.both)
        typed = self.pool.start('-g', 1, '--queue', 'people', '--name', 'typed', '--', *train(*LONG))
        wait_until(lambda: typed.steps() > 0, 'the interactive job runs')
        # Its virtual GPUs move one after another.
        wait_until(lambda: self.pool.job('even')['physical_gpus'] == 2, 'the other one has two GPUs')
        job = self.pool.job('typed')
        self.assertEqual((job['class'], job['idle_ms']), ('interactive', 7 * 60_000), job)
        self.assertIn('interactive', self.expect_ok(self.pool.tide('job', 'typed')).out)
        for wrong, said in ((('--class', 'urgent'), "batch, interactive or inference, not 'urgent'"),
                            (('--priority', 'high'), "from -1000 to 1000, not 'high'"),
                            (('-g', 4, '--min', 3, '--powers-of-two'), 'has 1, 2 or 4 GPUs; --min 3 is none of that'),
                            (('-g', '0.5', '--powers-of-two'), 'for whole GPUs')):
            result = self.pool.run(*wrong, '--', 'true')
            self.assertNotEqual(result.status, 0)
            self.assertIn(said, result.err)
        for name in ('even', 'typed'):
            self.expect_ok(self.pool.tide('kill', name))
        even.wait(), typed.wait()
        self.expect_nothing_left()


if __name__ == '__main__':
    unittest.main(verbosity=2)
