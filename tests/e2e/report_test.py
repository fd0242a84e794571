"""`tide report` and `tide top` over a real pool: what jobs have had of its GPUs, over a scheduler that is killed in
between; and what they have now, on a terminal that is left as it was found."""

import csv
import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import termios
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


class Terminal:
    """`tide top` on a terminal of its own."""

    def __init__(self, pool, rows, columns):
        self.ours, self.its = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.its)
        self.process = subprocess.Popen([pool.tide_path, 'top', '--interval', '500ms'], env=pool.env, stdin=self.its,
                                        stdout=self.its, stderr=self.its)
        self.shown = b''

    def resize(self, rows, columns):
        fcntl.ioctl(self.its, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def read(self, seconds=0.1):
        while select.select([self.ours], [], [], seconds)[0]:
            self.shown += os.read(self.ours, 65536)
        return self.shown

    def last_screen(self):
        """The lines of the last whole picture."""
        return self.read().decode().split('\x1b[H')[-1].replace('\x1b[K', '').replace('\x1b[J', '').split('\r\n')

    def is_as_before(self):
        return termios.tcgetattr(self.its) == self.before and self.read().endswith(b'\x1b[?25h\x1b[?1049l')

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.its)


class TopTest(PoolTest):
    def test_it_shows_what_is_and_leaves_the_terminal_as_it_was(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 1, '--name', 'pair', '--', *train('--steps', 2000, '--step-ms', 5))
        wait_until(lambda: job.steps() > 1, 'it trains')  # else the other one may come first
        self.pool.start('-g', 2, '--min', 2, '--name', 'later', '--', *train('--steps', 5))
        top = wait_until(lambda: self.busy_top(), 'it is seen to work')
        self.assertEqual(len(top['gpus']), 2)
        self.assertEqual([each['name'] for each in top['jobs']], ['pair', 'later'])
        self.assertEqual((top['jobs_running'], top['jobs_waiting']), (1, 1))
        self.assertEqual([gpu['jobs'] for gpu in top['gpus']].count(top['jobs'][0]['id']), 1)
        for arguments in ([], ['--once']):  # no terminal: once
            self.assertIn('later', self.expect_ok(self.pool.tide('top', *arguments)).out)
        for end in ('q', signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            self.look_at_terminal(end)

    def busy_top(self):
        top = self.pool.json('top')
        works = any(gpu.get('busy', 0) > 0 and gpu['used_bytes'] > 0 for gpu in top['gpus'])
        return top if works and len(top['jobs']) == 2 else None

    def look_at_terminal(self, end):
        terminal = Terminal(self.pool, 24, 80)
        try:
            wait_until(lambda: b'later' in terminal.read(), 'it shows the jobs')
            terminal.process.send_signal(signal.SIGTSTP)  # changes nothing
            if end == 'q':
                terminal.resize(8, 30)
                terminal.process.send_signal(signal.SIGWINCH)
                wait_until(lambda: len(terminal.last_screen()) <= 8 and max(map(len, terminal.last_screen())) <= 30,
                           'it fits the smaller window')
                os.write(terminal.ours, b'q')
            else:
                terminal.process.send_signal(end)
            status = terminal.process.wait(10)
            self.assertEqual(status, 0 if end in ('q', signal.SIGINT) else 128 + end)
            self.assertTrue(terminal.is_as_before(), terminal.read()[-200:])
        finally:
            terminal.close()


if __name__ == '__main__':
    unittest.main(verbosity=2)
