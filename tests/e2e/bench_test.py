"""`tools/bench --network`: its shape, and what it counts. Nothing here depends on how fast this machine is."""

import json
import os
import subprocess
import sys
import unittest

import pool


class BenchNetwork(unittest.TestCase):
    def test_counts_the_round_trips_of_a_step(self):
        pool.job_program('launch_bound')  # else there is no nvcc
        done = subprocess.run([sys.executable, os.path.join(pool.SOURCE, 'tools', 'bench'), '--network', '--quick',
                               '--json'], env=dict(os.environ, TIDE_BIN=pool.find_tide()), capture_output=True,
                              text=True, timeout=pool.PATIENCE_S, stdin=subprocess.DEVNULL, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        cells = json.loads(done.stdout)
        self.assertEqual([(cell['program'], cell['rtt_us']) for cell in cells],
                         [(name, rtt) for name in ('launch_bound', 'train_digits') for rtt in (300, 30000)])
        for cell in cells:
            self.assertGreaterEqual(cell['step_us'], cell['rtt_us'] * cell['dependencies'] * 0.9, cell)
            self.assertAlmostEqual(cell['ratio'], cell['step_us'] / cell['floor_us'], msg=str(cell))
            self.assertGreater(cell['wire_us'], 0, cell)
            if cell['program'] == 'launch_bound':  # 140 launches and a copy, and nothing is waited for but the copy
                self.assertEqual((cell['commands'], cell['round_trips']), (141, 1), cell)
            else:  # how often page-locked memory is asked for besides depends on time
                self.assertGreater(cell['commands'], 10, cell)


if __name__ == '__main__':
    unittest.main()
