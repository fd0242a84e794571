"""A move copies the memory of a running job, and pauses it for what has changed."""

import re
import subprocess
import unittest

from pool import PoolTest, job_program, wait_until

MIB = 1 << 20


class Moves(PoolTest):
    def move_ballast(self, mib, moves, share=1, servers=1):
        """Moves a job with so much memory to and fro; its reports, in order. The job checks every word at the end."""
        self.pool.up(gpus=2, servers=servers)
        job = self.pool.start('-g', 1, '--name', 'moved', '--', job_program('ballast'), '--mib', mib, '--share', share,
                              '--until-told', 1, stdin=subprocess.PIPE)
        wait_until(lambda: job.steps() > 0 or not job.running(), 'its memory is filled', 60)
        names = [f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus')]
        reports = []
        for i in range(moves):
            at = self.pool.json('job', 'moved')['vgpus'][0]['gpu']
            reports.append(self.pool.json('migrate', 'moved:0', next(name for name in names if name != at)))
            seen = job.steps()
            wait_until(lambda: job.steps() > seen or not job.running(), f'it goes on after move {i}', 60)
        self.assertTrue(job.running(), 'it ended while it was moved: ' + job.out() + job.err())
        job.process.stdin.close()
        self.assertEqual(job.wait(), 0, job.out()[-1000:] + job.err() + self.pool.logs())
        self.assertRegex(job.out(), 'digest [0-9a-f]{16}\nballast: ok')
        return reports

    def test_a_gibibyte_moves_while_the_job_runs(self):
        for report in self.move_ballast(1024, moves=3, share=0.5):
            self.assertGreaterEqual(report['bytes'], 1024 * MIB, report)
            self.assertGreaterEqual(report['rounds'], 2, report)
            self.assertLess(report['pause_bytes'], report['bytes'] / 4, report)
            phases = report['drain_ms'] + report['copy_ms'] + report['restore_ms']
            self.assertLessEqual(phases, report['pause_ms'], report)
            self.assertLess(report['pause_ms'], report['total_ms'], report)
            self.assertGreater(report['restore_ms'], 0, report)

    def test_between_servers(self):
        self.assertEqual(len(self.move_ballast(256, moves=4, servers=2)), 4)

    def test_what_is_written_faster_than_it_is_copied_moves_all_the_same(self):
        for report in self.move_ballast(512, moves=2, share=100):
            self.assertGreater(report['bytes'], 512 * MIB, report)

    def test_what_nobody_writes_is_sent_once(self):
        for report in self.move_ballast(256, moves=2, share=0):
            self.assertLess(report['bytes'], 300 * MIB, report)
            self.assertLess(report['pause_bytes'], 8 * MIB, report)

    def test_the_report_for_people(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 1, '--name', 'moved', '--', job_program('ballast'), '--mib', 64, '--seconds', 4)
        wait_until(lambda: 'ready' in job.out(), 'its memory is filled', 60)
        other = [gpu for gpu in self.pool.json('gpus') if gpu['job'] == ''][0]
        said = self.expect_ok(self.pool.tide('migrate', 'moved:0', f"{other['server']}/{other['index']}")).out
        self.assertTrue(re.fullmatch(r'job \d+: 1 -> 1 GPU, 1 vGPU moved, [\d.]+ [KM]iB in \d+ rounds, '
                                     r'[\d.]+ [KM]?i?B of it in pauses, longest pause \d+ ms '
                                     r'\(drain \d+, copy \d+, restore \d+\)\n', said), said)
        self.assertEqual(job.wait(), 0, job.out() + job.err())


class OverUcx(Moves):
    """Everything once more with the transport between hosts."""

    environment = {'TIDE_TRANSPORT': 'ucx'}


if __name__ == '__main__':
    unittest.main(verbosity=2)
