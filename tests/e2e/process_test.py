"""Processes of a job: children by the thousand beside work on the GPU, and programs that never use it."""

import unittest

from pool import PoolTest, job_program, wait_until

CHILDREN = 10_000


class Processes(PoolTest):
    def test_children_under_traffic(self):
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--', job_program('forks'), '--children', CHILDREN)
        self.assertEqual(job.wait(600), 0, job.out() + job.err())
        self.assertIn(f'{CHILDREN} children', job.out())
        self.assertEqual(job.err(), '')
        self.expect_nothing_left()

    def test_programs_that_use_no_gpu_ask_nobody(self):
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--', '/bin/sh', '-c',
                              'for i in $(seq 100); do /bin/sh -c :; done; '
                              'grep -c libtidecuda.so /proc/self/maps; sleep 1')
        wait_until(lambda: job.out() or not job.running(), 'a hundred shells')
        self.assertGreater(int(job.out()), 0)  # the library is there
        self.assertEqual(self.pool.pids('tide-worker'), [])
        self.assertEqual(job.wait(), 0, job.err())


if __name__ == '__main__':
    unittest.main()
