"""Connections that break: nothing is lost, nothing is done twice, and what cannot go on ends with one clear error.
tests/chaos breaks a real network; here the emulated one breaks itself, which needs no rights."""

import os
import re
import signal
import unittest

from pool import PoolTest, job_program, train, wait_until


class Connections(PoolTest):
    def outcome(self, transport, *command):
        """What the program printed, and how often a connection was made anew."""
        self.pool.env['TIDE_TRANSPORT'] = transport
        result = self.expect_ok(self.pool.run('-g', 1, '--', 'env', 'TIDE_LOG=info', *command))
        return result.out, result.err.count('is there again')

    def test_a_connection_that_breaks_again_and_again_changes_nothing(self):
        self.pool.up(gpus=1)
        for limit, command in ((200_000, train('--steps', 40, '--gpus', 1)), (3_000_000, [job_program('pinned')]),
                               (3_000_000, [job_program('copies')])):
            expected, none = self.outcome('sim', *command)
            self.assertEqual(none, 0)
            seen, breaks = self.outcome(f'sim:drop_after_bytes={limit},rtt_us=200', *command)
            self.assertEqual(re.sub(r'[0-9.]+ [mu]?s\b', '', seen), re.sub(r'[0-9.]+ [mu]?s\b', '', expected))
            self.assertGreater(breaks, 0, command)

    def test_packed_copies_and_known_contents_survive_breaks(self):
        self.pool.up(gpus=1)
        self.pool.env['TIDE_COMPRESS'] = 'on'
        _, breaks = self.outcome('sim:drop_after_bytes=2000000', job_program('batches'), '--mib', '4', '--rounds', '3')
        self.assertGreater(breaks, 0)

    def test_a_connection_breaks_while_the_vgpu_moves(self):
        self.pool.up(gpus=2)
        steps = train('--steps', 100, '--gpus', 1)
        expected, _ = self.outcome('sim', *steps)
        self.pool.env['TIDE_TRANSPORT'] = 'sim:drop_after_bytes=1000000'
        job = self.pool.start('-g', 1, '--name', 'moved', '--', *steps, '--step-ms', '50')
        names = [f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus')]
        wait_until(lambda: job.steps() > 1, 'it trains')
        moves = 0
        for target in names * 3:  # refused where the connection is away at that moment
            moves += self.pool.tide('migrate', 'moved:0', target).status == 0 if job.running() else 0
        self.assertEqual(job.wait(), 0, job.err())
        self.assertGreater(moves, 0)
        self.assertEqual(re.findall('digest .*', job.out()), re.findall('digest .*', expected))

    def test_a_client_that_is_killed_leaves_its_gpu_soon(self):
        self.pool.env['TIDE_TRANSPORT'] = 'ucx'
        self.pool.up(gpus=1)
        # Another process of the job goes on, so that the job does not end.
        program = ' '.join(train('--gpus', 1, '--steps', 3000, '--step-ms', 50))
        job = self.pool.start('-g', 1, '--', 'sh', '-c', program + '; sleep 60')
        wait_until(lambda: job.steps() > 1, 'it trains')
        os.kill(self.pool.pids('train_digits')[0], signal.SIGKILL)
        wait_until(lambda: not self.pool.pids('tide-worker'), 'its worker ends', 4)
        self.assertTrue(job.running())

    def test_a_network_that_is_fast_is_not_blamed(self):
        self.pool.env['TIDE_TRANSPORT'] = 'ucx'
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--name', 'near', '--', job_program('steady'), '--rounds', 100_000,
                              '--pause-us', 2000)
        link = {}

        def known():
            seen = (self.pool.job('near') or {}).get('vgpus')
            link.update(seen[0].get('link', {}) if seen else {})
            return link.get('window_ms', 0) >= 4000 or not job.running()
        wait_until(known, 'some seconds are known', 30)
        self.assertTrue(job.running(), job.err())
        self.assertTrue(0 < link['round_trip_us'] < 100_000, link)
        self.assertGreater(link['window_bytes'], 0)
        self.assertEqual(self.pool.json('why', 'near')['warning'], '')
        self.assertNotIn('warning', self.pool.tide('job', 'near').out)

    def test_a_worker_that_is_killed_is_one_clear_error(self):
        self.pool.env['TIDE_TRANSPORT'] = 'ucx'
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--', *train('--gpus', 1, '--steps', 3000, '--step-ms', 50))
        wait_until(lambda: job.steps() > 1, 'it trains')
        os.kill(self.pool.pids('tide-worker')[0], signal.SIGKILL)
        self.assertNotEqual(job.wait(20), 0)
        self.assertEqual(len(re.findall('is lost: its worker ended', job.err())), 1, job.err())


if __name__ == '__main__':
    unittest.main(verbosity=2)
