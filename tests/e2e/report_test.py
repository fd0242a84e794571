"""`tide report` over a real pool: what jobs have had of its GPUs, over a scheduler that is killed in between."""

import csv
import io
import time
import unittest

from pool import PoolTest, train, wait_until


class ReportTest(PoolTest):
    def rows(self, by='job'):
        report = self.pool.json('report', '--by', by, '--since', '1h')
        return report, {row['key']: row for row in report['rows']}

    def test_figures_agree_with_what_ran_over_a_killed_scheduler(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 2, '--min', 2, '--name', 'pair', '--', *train('--steps', 2000, '--step-ms', 20))
        wait_until(lambda: job.steps() > 1, 'it trains')
        begun = time.monotonic()
        time.sleep(1.5)
        self.replace_scheduler()
        wait_until(lambda: self.pool.job('pair')['state'] == 'running', 'it is known again')
        seen = job.steps()
        wait_until(lambda: job.steps() > seen, 'it trains on')
        report, before = self.rows()
        known = time.monotonic() - begun
        number = self.pool.job('pair')['id']
        held = before[number]['held_gpu_s']
        self.assertGreater(held, 2 * known - 2, 'a running job counts, also while nobody counted')
        self.assertLess(held, 2 * known + 20, 'since it was placed')
        time.sleep(1)
        again = self.rows()[1][number]['held_gpu_s']
        self.assertGreater(again, held)
        self.expect_ok(self.pool.tide('kill', 'pair'))
        job.wait()
        taken = time.monotonic() - begun
        wait_until(lambda: self.rows()[1][number]['used_gpu_s'] > 0, 'what agents have counted is heard')
        report, rows = self.rows()
        self.assertLess(rows[number]['held_gpu_s'], 2 * taken + 20)
        self.assertGreaterEqual(rows[number]['held_gpu_s'], again)
        self.assertLessEqual(rows[number]['used_gpu_s'], rows[number]['held_gpu_s'] + 0.5)
        self.assertAlmostEqual(report['total']['held_gpu_s'], rows[number]['held_gpu_s'], 6)
        self.assertAlmostEqual(rows[number]['idle_gpu_s'] + rows[number]['used_gpu_s'], rows[number]['held_gpu_s'], 6)
        self.assertIn('% of held GPU time did work', report['verdict'])
        time.sleep(1.2)
        self.assertAlmostEqual(self.rows()[1][number]['held_gpu_s'], rows[number]['held_gpu_s'], 6)
        self.look_at_its_forms(number, rows[number])

    def look_at_its_forms(self, number, row):
        lines = list(csv.DictReader(io.StringIO(
            self.expect_ok(self.pool.tide('report', '--by', 'job', '--since', '1h', '--csv')).out)))
        self.assertEqual([line['job'] for line in lines], [number, 'total'])
        self.assertAlmostEqual(float(lines[0]['held_gpu_s']), row['held_gpu_s'], 6)
        table = self.expect_ok(self.pool.tide('report', '--by', 'queue', '--since', '1h')).out
        self.assertIn('default', table)
        self.assertIn('total', table)
        self.assertNotIn('MONEY', table)
        for wrong in (['--since', 'soon'], [], ['--since', '1h', '--by', 'moon'], ['--since', '1h', '--until', '2h']):
            self.assertEqual(self.pool.tide('report', *wrong).status, 2)
        prices = f'{self.pool.home}/prices.toml'
        with open(prices, 'w', encoding='ascii') as file:
            file.write('[pool]\n[price]\ndefault = 3600\ncurrency = "EUR"\n')
        self.expect_ok(self.pool.tide('config', 'apply', prices))
        priced, rows = self.rows('user')
        self.assertEqual(priced['currency'], 'EUR')
        self.assertAlmostEqual(priced['total']['money'], row['held_gpu_s'], 3)
        self.assertIn('EUR', self.expect_ok(self.pool.tide('report', '--by', 'user', '--since', '1h')).out)


if __name__ == '__main__':
    unittest.main(verbosity=2)
