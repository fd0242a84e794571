"""`tide simulate` as people use it: tables, JSON, CSV, a page, what-if, and errors with file and line."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

TIDE = os.environ['TIDE_BIN']
OPTIONS = os.path.join(os.path.dirname(__file__), '..', '..', 'tools', 'tide', 'simulate_options.cc')
HEADER = 'job_id,user_or_team,submit_s,duration_s,gpus_requested\n'
# Four GPUs: b needs all of them and waits for a; c passes it where it may.
JOBS = 'a,x,0,10,3\nb,y,1,10,4\nc,x,2,4,1\n'


class Simulate(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.trace = self.file('jobs.csv', HEADER + JOBS)

    def tearDown(self):
        self.folder.cleanup()

    def file(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, 'w') as file:
            file.write(text)
        return path

    def tide(self, *words):
        return subprocess.run([TIDE, 'simulate', *map(str, words)], capture_output=True, text=True, timeout=60)

    def ok(self, *words):
        done = self.tide(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        return done.stdout

    def error(self, status, message, *words):
        done = self.tide(*words)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (status, '', message))

    def test_json_has_the_figures(self):
        answer = json.loads(self.ok(self.trace, '--gpus', 4, '--policy', 'fifo', '--json'))
        # a 0-10, b 10-20, c 20-24.
        self.assertAlmostEqual(answer['avg_jct_s'], (10 + 19 + 22) / 3)
        self.assertAlmostEqual(answer['avg_queue_s'], (0 + 9 + 18) / 3)
        self.assertEqual((answer['makespan_s'], answer['p99_jct_s'], answer['lost_gpu_s']), (24, 22, 0))
        self.assertAlmostEqual(answer['utilisation'], 74 / 96)
        self.assertEqual(answer['preemptions_per_job'], 0)
        # Nobody is faster than alone; and no GPUs do 74 GPU-seconds earlier.
        self.assertAlmostEqual(answer['bound_avg_jct_s'], max(8, answer['bound_one_machine_s'],
                                                              answer['bound_mean_busy_s']))
        self.assertAlmostEqual(answer['bound_makespan_s'], 74 / 4)
        self.assertGreaterEqual(answer['wall_s'], 0)
        self.assertEqual(len(answer['runs']), 1)
        self.assertEqual(answer['runs'][0]['policy'], 'fifo')

    def test_every_policy_and_what_if(self):
        answer = json.loads(self.ok(self.trace, '--gpus', 4, '--policy', 'all', '--what-if', 'gpus=+4,gpus=16',
                                    '--json', '--check'))
        names = ['fifo', 'fifo-skip', 'easy', 'sjf', 'srtf', 'srsf', 'tiresias-l', 'tide-est', 'tide-given',
                 'tide-oracle']
        self.assertEqual([run['policy'] for run in answer['runs']], 3 * names)
        self.assertEqual([run['gpus'] for run in answer['runs']], 10 * [4] + 10 * [8] + 10 * [16])
        self.assertTrue(all(run['avg_queue_s'] == 0 for run in answer['runs'][10:]))

    def test_the_pools_own_policy_is_the_default(self):
        answer = json.loads(self.ok(self.trace, '--gpus', 4, '--json', '--check'))
        self.assertEqual(answer['policy'], 'tide')
        self.assertEqual(answer['avg_queue_s'], 0)
        rigid = json.loads(self.ok(self.trace, '--gpus', 4, '--min', 'all', '--json'))
        self.assertEqual(rigid['moves_per_job'], 0)

    def test_deadlines(self):
        rates = self.file('rates.csv', 'table,file,c0,c1,c2\nA,net.csv,global_batch_size,1,2\nA,net.csv,64,1,1.5\n')
        header = HEADER.strip() + ',deadline_s,model_name,iterations,batch_size\n'
        trace = self.file('deadlines.csv', header + 'a,x,0,10,1,10,net,10,64\nb,x,0,10,1,9,net,10,64\n'
                          'c,y,0,10,1,6,net,10,64\n')
        words = (trace, '--mode', 'deadlines', '--throughputs', rates, '--gpus', 2)
        runs = json.loads(self.ok(*words, '--json'))['runs']
        self.assertEqual([(r['part'], r['jobs'], r['possible_alone'], r['promised'], r['kept']) for r in runs],
                         [('x', 2, 2, 1, 1), ('y', 1, 0, 0, 0)])
        self.assertRegex(self.ok(*words), r'(?m)^x +2 +2 +2 +1 +1 +0.500 +1.000')
        self.error(2, 'tide simulate: --mode deadlines and --throughputs FILE go together; see tide simulate --help\n',
                   trace, '--mode', 'deadlines')
        self.error(1, f'tide: {self.trace}: line 2: job a has no deadline_s\n', self.trace, *words[1:])

    def test_orders_by_estimates(self):
        for words in (('--patience', 'x'), ('--oldest', '2'), ('--estimate-error', '0.5')):
            done = self.tide(self.trace, '--gpus', 4, '--policy', 'tide-est', *words)
            self.assertEqual(done.returncode, 2)
            self.assertIn(f'{words[0]} must be a number from ', done.stderr)
        # Everything for the oldest: in the order of submission, and who does not fit shrinks.
        answer = json.loads(self.ok(self.trace, '--gpus', 4, '--policy', 'tide-est', '--oldest', 1, '--json'))
        self.assertEqual((answer['lost_gpu_s'], answer['preemptions_per_job']), (0, 0))

    def test_a_measured_curve(self):
        trace = self.file('one.csv', HEADER + 'a,x,0,10,4\n')
        curve = self.file('curve.csv', 'gpus_part,speed_part\n0.25,0.4\n0.75,0.8\n1,1\n')
        # Half of its GPUs: half way between 0.4 and 0.8.
        answer = json.loads(self.ok(trace, '--gpus', 2, '--scaling', curve, '--json'))
        self.assertAlmostEqual(answer['avg_jct_s'], 10 / 0.6)
        bad = self.file('bad.csv', 'gpus_part,speed_part\n0.5,0.4\n0.4,0.5\n1,1\n')
        self.error(2, f"tide simulate: --scaling must be slowest, linear or a curve's file; {bad}:3: both are above 0 "
                   "and at most 1, and gpus_part above the row's before; see tide simulate --help\n", trace, '--gpus',
                   2, '--scaling', bad)

    def test_table_and_csv(self):
        table = self.ok(self.trace, '--gpus', 4, '--policy', 'fifo,easy')
        self.assertRegex(table, r'(?m)^POLICY +GPUS +MEAN JCT s')
        self.assertRegex(table, r'(?m)^fifo +4 +17 +')
        self.assertRegex(table, r'(?m)^bound +4 +')
        rows = list(csv.DictReader(io.StringIO(self.ok(self.trace, '--gpus', 4, '--policy', 'fifo,easy', '--csv'))))
        self.assertEqual([row['policy'] for row in rows], ['fifo', 'easy'])
        self.assertEqual(float(rows[0]['makespan_s']), 24)

    def test_confidence_intervals(self):
        jobs = HEADER + ''.join(f'{i},x,{i * 7 % 5 + i * 10},{i * 13 % 50 + 1},{i % 4 + 1}\n' for i in range(200))
        words = (self.file('many.csv', jobs), '--sort', '--gpus', 4, '--policy', 'fifo,srtf', '--seeds', 8)
        answer = json.loads(self.ok(*words, '--json'))
        self.assertEqual([run['seeds'] for run in answer['runs']], [8, 8])
        width = answer['ci95']['avg_jct_s']
        self.assertTrue(0 < width < answer['avg_jct_s'], width)
        self.assertNotIn('wall_s', answer['ci95'])
        rows = list(csv.DictReader(io.StringIO(self.ok(*words, '--csv'))))
        self.assertAlmostEqual(float(rows[0]['ci95_avg_jct_s']), width)
        table = self.ok(*words)
        self.assertEqual(table.count('\n  +- '), 2, table)
        self.assertIn('+-: 95 % confidence, from 8 traces', table)
        self.assertNotIn('ci95', self.ok(self.trace, '--gpus', 4, '--json'))
        self.error(2, "tide simulate: --seeds must be a number from 2 to 1000, not '1'; see tide simulate --help\n",
                   self.trace, '--gpus', 4, '--seeds', 1)

    def test_page(self):
        page = os.path.join(self.folder.name, 'page.html')
        self.ok(self.trace, '--gpus', 4, '--policy', 'fifo,srtf', '--html', page)
        with open(page) as file:
            text = file.read()
        for heading in ('Waiting', 'Utilisation', 'Fairness', 'Jobs under srtf'):
            self.assertIn(heading, text)
        plots = [xml.etree.ElementTree.fromstring(plot) for plot in re.findall(r'<svg.*?</svg>', text, re.S)]
        self.assertEqual(len(plots), 5)
        for line in (line for plot in plots for line in plot.iter('polyline')):
            for point in line.get('points').split():
                x, y = map(float, point.split(','))
                self.assertTrue(0 <= x <= 960 and 0 <= y <= 300, point)
        self.assertGreater(text.count('<rect'), 6)
        self.assertNotRegex(text, r'(src|href)=')
        self.assertNotRegex(text, r'\b(nan|inf)\b')
        self.error(1, f'tide: cannot write {self.folder.name}: Is a directory\n', self.trace, '--gpus', 4, '--html',
                   self.folder.name)

    def test_config_says_how_many_gpus(self):
        config = self.file('pool.toml', '[[server]]\nname = "a"\nsoftgpu_devices = 3\n[[server]]\nname = "b"\n'
                           'softgpu_devices = 1\n')
        answer = json.loads(self.ok(self.trace, '--config', config, '--policy', 'fifo', '--json'))
        self.assertEqual(answer['gpus'], 4)
        silent = self.file('silent.toml', '[[server]]\nname = "a"\n')
        self.error(2, f"tide simulate: {silent} does not say how many GPUs server 'a' has; give --gpus; see tide "
                   'simulate --help\n', self.trace, '--config', silent)

    def test_queues_of_the_configuration(self):
        queues = ('[[queue]]\nname = "a"\nquota = 3\n[[queue]]\nname = "b"\nquota = 1\nlimit = 2\n')
        config = self.file('pool.toml', queues)
        # b comes first and may not have more than its limit; a takes back what it is owed, b's last job waits for that.
        trace = self.file('two.csv', HEADER + 'b1,b,0,100,2\nb2,b,0,100,1\na1,a,10,100,3\n')
        answer = json.loads(self.ok(trace, '--gpus', 4, '--config', config, '--min', 'all', '--json'))
        self.assertEqual((answer['quota_lack_gpu_s'], answer['over_limit_gpu_s']), (0, 0))
        a, b = answer['queues']
        self.assertEqual((a['queue'], a['quota'], a['limit'], a['had_gpu_s']), ('a', 3, 4, 300))
        self.assertEqual((b['queue'], b['quota'], b['limit'], b['had_gpu_s']), ('b', 1, 2, 300))
        self.assertEqual(answer['preemptions_per_job'], 1 / 3)
        alone = json.loads(self.ok(trace, '--gpus', 4, '--min', 'all', '--json'))
        self.assertNotIn('queues', alone)
        self.assertLess(alone['avg_jct_s'], answer['avg_jct_s'])
        self.assertRegex(self.ok(trace, '--gpus', 4, '--config', config), r'\n  a +3 +4 ')

        stranger = self.file('stranger.csv', HEADER + 'c1,c,0,100,2\n')
        self.error(1, f"tide: {stranger}: line 2: job c1: its team 'c' is no queue of pool.toml that takes jobs; "
                   "a queue called 'default' takes those of all other teams\n",
                   stranger, '--gpus', 4, '--config', config)
        wide = self.file('wide.csv', HEADER + 'b1,b,0,100,3\n')
        done = self.tide(wide, '--gpus', 4, '--config', config, '--min', 'all')
        self.assertEqual(done.returncode, 1)
        self.assertIn("line 2: job b1: queue 'b' has a limit of 2 GPUs", done.stderr)

    def test_compressed(self):
        packed = os.path.join(self.folder.name, 'jobs.csv.gz')
        with gzip.open(packed, 'wt') as file:
            file.write(HEADER + JOBS)
        self.assertEqual(json.loads(self.ok(packed, '--gpus', 4, '--json'))['jobs'], 3)
        with open(packed, 'rb') as file:
            whole = file.read()
        with open(packed, 'wb') as file:
            file.write(whole[:len(whole) // 2])
        done = self.tide(packed, '--gpus', 4)
        self.assertEqual((done.returncode, done.stdout), (1, ''))
        self.assertIn('gzip file', done.stderr)

    def test_wrong_rows(self):
        bad = self.file('bad.csv', HEADER + JOBS + 'd,x,1,5,1\ne,x,3,-5,1\nf,x,3,5\ng,x,4,5,1\n')
        self.error(1, f'{bad}:5: the clock goes back: submit_s 1 is before the 2 of line 4 (--sort puts such rows in '
                   f"order)\n{bad}:6: duration_s '-5' is no time above 0 in seconds\n{bad}:7: 4 fields; the first line "
                   f'has 5\ntide: {bad}: nothing was simulated; --skip-bad leaves wrong rows out\n', bad, '--gpus', 4)
        done = self.tide(bad, '--gpus', 4, '--skip-bad', '--json')
        self.assertEqual(done.returncode, 0)
        answer = json.loads(done.stdout)
        self.assertEqual((answer['jobs'], answer['wrong_rows']), (4, 3))
        self.error(1, f'tide: {self.trace}: line 3: job b asks for 4 GPUs, the pool has 3\n', self.trace, '--gpus', 3,
                   '--policy', 'fifo')
        answer = json.loads(self.ok(self.trace, '--gpus', 3, '--policy', 'fifo', '--skip-bad', '--json'))
        self.assertEqual((answer['jobs'], answer['jobs_left_out']), (2, 1))

    def test_muri(self):
        header = HEADER.rstrip() + ',queue_vc_trace,model_name,iterations,iteration_time_ms\n'
        trace = self.file('muri.csv', header + 'a,x,0,9,1,one,dqn,1000,1000\nb,x,100,9,1,one,dqn,100,1000\n'
                          'a,x,0,9,1,two,bert,100,1000\n')
        answer = json.loads(self.ok(trace, '--mode', 'muri', '--json'))
        self.assertEqual([(run['part'], run['policy']) for run in answer['runs']],
                         [(part, policy) for part in ('one', 'two') for policy in ('srtf', 'srsf', 'tiresias-l')])
        self.assertAlmostEqual(answer['avg_jct_s'], (1025 + 101.5) / 2)
        self.assertEqual(len(json.loads(self.ok(trace, '--mode', 'muri', '--part', 'two', '--json'))['runs']), 3)
        self.error(1, f"tide: {self.trace}: line 2: job a has no iterations and iteration_time_ms, which --mode muri "
                   'needs\n', self.trace, '--mode', 'muri')
        self.error(1, f"tide: {trace}: has no part 'three'; it has one, two\n", trace, '--gpus', 4, '--part', 'three')

    def test_pollux(self):
        steps = self.file('steps.csv', 'application,table,placement,num_nodes,num_replicas,local_bsz,step_time_s,'
                          'sync_time_s\nnet,placement,1,1,1,4,1,0\n')
        trace = self.file('pollux.csv', 'job_id,submit_s,duration_s,gpus_requested,workload,application,batch_size\n'
                          'a,10,100,1,w,net,4\n')
        answer = json.loads(self.ok(trace, '--mode', 'pollux', '--step-times', steps, '--json'))
        # From the next minute on, after 30 s.
        self.assertEqual((answer['policy'], answer['avg_jct_s'], answer['gpus']), ('tiresias', 50 + 130, 64))
        self.error(1, f'tide: {trace}:1: the first line must be application,table,placement,num_nodes,num_replicas,'
                   'local_bsz,step_time_s,sync_time_s\n', trace, '--mode', 'pollux', '--step-times', trace)
        self.error(2, 'tide simulate: --mode pollux and --step-times FILE go together; see tide simulate --help\n',
                   trace, '--mode', 'pollux')

    def test_openb(self):
        nodes = self.file('nodes.csv', 'node,cpu_milli,memory_mib,gpus,gpu_model\na,8000,1000,2,T4\n')
        header = 'cpu_milli,memory_mib,gpus_requested,gpu_fraction_total,gpu_spec\n'
        # Half GPUs with a quarter of the CPU: four on the two GPUs, or two that take them whole.
        pods = self.file('pods.csv', header + 4 * '2000,10,1,0.5,\n')
        answer = json.loads(self.ok(pods, '--mode', 'openb', '--nodes', nodes, '--seeds', 3, '--json'))
        self.assertEqual({run['policy']: run['allocated_pct'] for run in answer['runs']},
                         {'random': 100, 'best-fit': 100, 'fgd': 100, 'pooled': 100, 'tide': 50, 'moves': 100,
                          'turns': 100})
        self.assertEqual([run['leased_pct'] for run in answer['runs']], 7 * [100])
        table = self.ok(pods, '--mode', 'openb', '--nodes', nodes, '--policy', 'fgd')
        self.assertRegex(table, r'(?m)^fgd +100.00 +0.00 +100.00 +0.00 +0.0000 +100.00$')
        bad = self.file('bad.csv', header + '2000,10,1,0.5,\n2000,10,1,1.5,\n')
        self.error(1, f'tide: {bad}:3: the row is wrong\n', bad, '--mode', 'openb', '--nodes', nodes)
        self.error(1, f"tide: {bad}:1: no column 'gpus'\n", bad, '--mode', 'openb', '--nodes', bad)
        self.error(2, 'tide simulate: --mode openb and --nodes FILE go together; see tide simulate --help\n', pods,
                   '--mode', 'openb')

    def test_usage(self):
        def usage(message, *words):
            self.error(2, f'tide simulate: {message}; see tide simulate --help\n', *words)
        usage('expects one trace')
        usage('needs --gpus N, or --config FILE', self.trace)
        usage("--gpus must be a number from 1 to 1000000, not '0'", self.trace, '--gpus', 0)
        usage("--what-if 'gpus=-4' leaves no GPU", self.trace, '--gpus', 4, '--what-if', 'gpus=-4')
        usage("--what-if 'nodes=2' is not understood; write gpus=+16, gpus=-8 or gpus=96", self.trace, '--gpus', 4,
              '--what-if', 'nodes=2')
        usage("--move-cost must be a time like 200ms or 3s, not 'long'", self.trace, '--gpus', 4, '--move-cost', 'long')
        usage("there is no mode 'exact', only muri, pollux, openb and deadlines", self.trace, '--mode', 'exact')
        usage('--mode muri has nodes of 8 GPUs: --gpus must be a multiple of 8', self.trace, '--mode', 'muri', '--gpus',
              9)
        usage('--json or --csv, not both', self.trace, '--gpus', 4, '--json', '--csv')
        told = self.ok('--help')
        with open(OPTIONS) as file:
            specs = file.read().split('specs = {')[1].split('};')[0]
        for option in re.findall(r'"([a-z-]+)"', specs):
            self.assertIn('--' + option, told)
        done = self.tide(self.trace, '--gpus', 4, '--policy', 'lottery')
        self.assertEqual(done.returncode, 2)
        self.assertTrue(re.search("there is no policy 'lottery'; there are tide, fifo", done.stderr), done.stderr)


if __name__ == '__main__':
    unittest.main()
