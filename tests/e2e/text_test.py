"""What kernels print is on the job's own output, in time; programs of several units run."""

import unittest

from pool import PoolTest, job_program


class Text(PoolTest):
    def test_a_kernel_prints_before_the_call_that_waits_for_it_returns(self):
        self.pool.up(gpus=1)
        done = self.expect_ok(self.pool.run('-g', 1, '--', job_program('speaks')))
        expected = [line for i in range(50) for line in (f'kernel {i}: {1000 + 2 * i}', f'program {i}')]
        self.assertEqual(done.out.strip().split('\n'), [*expected, 'log names it', 'linked 42'])
        complaint = done.err.find('void demand(int): block: [0,0,0], thread: [0,0,0] Assertion `n == 0` failed.')
        self.assertGreaterEqual(complaint, 0, done.err)
        self.assertGreater(done.err.find('program: 710'), complaint, done.err)


if __name__ == '__main__':
    unittest.main()
