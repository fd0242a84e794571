"""What takes long because it waits, and is not disturbed by what runs beside it."""

import os
import signal
import time
import unittest

from pool import PoolTest, train, wait_until


class Patience(PoolTest):
    def test_jobs_run_on_without_a_scheduler(self):
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--', *train('--steps', 900, '--step-ms', 50, '--gpus', 1))
        wait_until(lambda: job.steps() > 1, 'it trains')
        os.kill(self.pool.pids('tide-scheduler')[0], signal.SIGKILL)
        time.sleep(40)  # longer than anybody waits for anybody
        seen = job.steps()
        wait_until(lambda: job.steps() > seen or not job.running(), 'it trains on')
        self.assertEqual(job.wait(), 0, job.err())
        self.assertEqual(job.err().count('does not answer'), 1, job.err())


if __name__ == '__main__':
    unittest.main(verbosity=2)
