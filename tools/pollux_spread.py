#!/usr/bin/env python3
"""How much of a difference to Pollux's published Tiresias runs is chance: the same with durations a little otherwise.

usage: tools/pollux_spread.py TIDE FOLDER [--error E] [--runs N]

  TIDE      the program; FOLDER: of pollux_osdi21_workloads.csv.gz and pollux_t4_step_times.csv.gz
  --error E each application's durations are longer or shorter by up to this part (default 0.002)
  --runs N  of the same (default 30)

Prints for each workload how far the mean time from submission to end is from what was published, in percent: as the
trace is, and the least, the mean and the most of the runs.
"""

import argparse
import csv
import gzip
import io
import os
import random
import statistics
import subprocess
import tempfile

LENGTH = 'duration_s_isolated_at_requested_config'
EXPECTED = os.path.join(os.path.dirname(__file__), '..', 'tests', 'scheduler', 'pollux_expected.csv')


def simulate(tide, trace, times):
    done = subprocess.run([tide, 'simulate', trace, '--mode', 'pollux', '--step-times', times, '--csv'],
                          capture_output=True, text=True, check=True)
    return {row['part']: float(row['avg_jct_s']) for row in csv.DictReader(io.StringIO(done.stdout))}


def disturbed(rows, error, seed, path):
    dice, factors = random.Random(seed), {}
    with open(path, 'w', encoding='ascii') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            factor = factors.setdefault((row['application'], row['batch_size']), 1 + dice.uniform(-error, error))
            writer.writerow({**row, LENGTH: f"{float(row[LENGTH]) * factor:.3f}"})


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split('usage: ')[1].split('\n')[0])
    parser.add_argument('tide')
    parser.add_argument('folder')
    parser.add_argument('--error', type=float, default=0.002)
    parser.add_argument('--runs', type=int, default=30)
    options = parser.parse_args()
    trace, times = (os.path.join(options.folder, name)
                    for name in ('pollux_osdi21_workloads.csv.gz', 'pollux_t4_step_times.csv.gz'))
    with gzip.open(trace, 'rt') as file:
        rows = list(csv.DictReader(file))
    with open(EXPECTED, encoding='ascii') as file:
        published = {f"load{row['relative_load']}-w{row['workload'].split('-')[1]}": float(row['avg_jct_s'])
                     for row in csv.DictReader(file)}
    recorded = simulate(options.tide, trace, times)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.runs):
            disturbed(rows, options.error, seed, f'{folder}/t.csv')
            runs.append(simulate(options.tide, f'{folder}/t.csv', times))
    print(f'{"workload":12} {"recorded":>9} {"least":>7} {"mean":>7} {"most":>7}')
    for part, theirs in published.items():
        off = [100 * (run[part] / theirs - 1) for run in runs]
        print(f'{part:12} {100 * (recorded[part] / theirs - 1):+9.2f} {min(off):+7.2f} {statistics.mean(off):+7.2f} '
              f'{max(off):+7.2f}')
    beyond = sum(abs(run[part] / theirs - 1) > 0.02 for run in runs for part, theirs in published.items())
    print(f'more than 2 % off: {beyond} of {len(runs) * len(published)} runs')


if __name__ == '__main__':
    main()
