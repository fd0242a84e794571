"""Steps of two training programs over an emulated network, beside what the network leaves possible; for tools/bench.

A step cannot be shorter than the work of the GPU or the bytes on the wire, whichever is longer, and a round trip for
each thing that the program waits for before it can go on."""

import json
import os
import re
import subprocess
import time

import programs

ROUND_TRIPS_US = (10, 30, 300, 1000, 30000)
GBITS = (100, 25, 10, 1)
RUNS = 3  # of each cell
QUICK = {'round_trips_us': (300, 30000), 'gbits': (10,)}
RATIO_WANTED = 1.05
SETTLE_S = 0.12  # counters of a job that has come to rest are told within this and a round trip
PATIENCE_S = 120


class Shape:
    """A program, and what one of its steps waits for."""

    def __init__(self, name, dependencies, arguments, few_bytes):
        self.name, self.dependencies, self.arguments, self.few_bytes = name, dependencies, arguments, few_bytes

    def steps(self, rtt_us, quick):
        """Few where a step takes long."""
        return 8 if quick else 12 if rtt_us >= 10000 else 40


SHAPES = [
    # The program reads each loss before it goes on.
    Shape('launch_bound', 1, lambda steps: ['--steps', str(steps), '--gates', '1'],
          lambda steps: ['--steps', str(steps)]),
    # Two steps are under way at once, so each waits for half of a round trip.
    Shape('train_digits', 0.5, lambda steps: ['--quiet', '--steps', str(steps + 10), '--measured', str(steps)],
          lambda steps: ['--quiet', '--steps', str(steps)]),
]


def best_and_median(runs):
    """Of runs' [best, median]."""
    return min(best for best, _ in runs), min(median for _, median in runs)


class Bench:
    def __init__(self, pool, work, quick):
        self.pool, self.work, self.quick = pool, work, quick
        self.runs = 0

    def start(self, shape, transport, arguments, options=()):
        self.runs += 1
        name = f'{shape.name}-{self.runs}'
        folder = os.path.join(self.work, shape.name)
        command = [self.pool.tide, 'run', '-g', '1', '--name', name, *options, '--', os.path.join(folder, shape.name),
                   *arguments]
        return name, subprocess.Popen(command, env=dict(self.pool.env, TIDE_TRANSPORT=transport), text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def counters(self, job):
        """Of a job that waits at a gate: asked until they stand still."""
        before = None
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            now = self.pool.counters(job, ('round_trips', 'commands', 'bytes_in', 'bytes_out'))
            if now is not None and now == before and now['commands'] > 0:
                return now
            before = now
            time.sleep(SETTLE_S)
        raise SystemExit(f'{job}: its counters do not come to rest')

    def measure(self, shape, transport, steps, counted):
        """Microseconds of a step, the best and the median, and what the library counted of it."""
        name, process = self.start(shape, transport, shape.arguments(steps))
        seen, out = [], []
        for line in process.stdout:
            out.append(line)
            if line.strip() in ('begin', 'end'):
                if counted:
                    seen.append(self.counters(name))
                process.stdin.write('\n')
                process.stdin.flush()
        if process.wait(PATIENCE_S) != 0:
            raise SystemExit(f'{shape.name} over {transport}: status {process.returncode}: {"".join(out)}')
        times = [float(re.search(rf'^{key} ([\d.]+)$', ''.join(out), flags=re.M).group(1))
                 for key in ('best_us', 'step_us')]
        counts = {key: (seen[1][key] - seen[0][key]) / steps for key in seen[0]} if counted else {}
        return times, counts

    def bytes_of_step(self, shape):
        """To the GPU's server and back, as the tracer counts them, of one step more, between two machines."""
        totals = []
        for steps in (10, 20):
            trace = os.path.join(self.work, f'{shape.name}.trace')
            _, process = self.start(shape, 'sim', shape.few_bytes(steps), ['--trace', trace])
            process.communicate()
            done = subprocess.run([self.pool.tide, 'trace', trace, '--json'], env=self.pool.env, capture_output=True,
                                  text=True, timeout=60)
            if process.returncode != 0 or done.returncode != 0:
                raise SystemExit(f'{shape.name} with --trace: status {process.returncode}: {done.stderr}')
            functions = json.loads(done.stdout)['functions']
            totals.append([sum(f[key] for f in functions) for key in ('sent_bytes', 'received_bytes')])
        return [(late - early) / 10 for early, late in zip(*totals)]

    def cell(self, shape, wire_bytes, rtt_us, gbit):
        steps = shape.steps(rtt_us, self.quick)
        gpu, step, counts = [], [], None
        for run in range(1 if self.quick else RUNS):  # in turn, so that both meet the same moments of the machine
            gpu.append(self.measure(shape, 'shm', shape.steps(0, self.quick), False)[0])
            times, counted = self.measure(shape, f'sim:rtt_us={rtt_us},gbit={gbit}', steps, run == 0)
            step.append(times)
            counts = counts or counted
        # What others do on this machine only adds: the best step shows what is left.
        (gpu_us, gpu_median_us), (step_us, median_us) = map(best_and_median, (gpu, step))
        wire_us = max(wire_bytes) * 8 / (gbit * 1000)
        waits_us = rtt_us * shape.dependencies
        floor_us = max(gpu_us, wire_us) + waits_us
        median_floor_us = max(gpu_median_us, wire_us) + waits_us
        bound = max((gpu_us, 'GPU'), (wire_us, 'wire'), (waits_us, 'round trip'))[1]
        return {'program': shape.name, 'rtt_us': rtt_us, 'gbit': gbit, 'step_us': step_us, 'floor_us': floor_us,
                'ratio': step_us / floor_us, 'median_us': median_us, 'median_ratio': median_us / median_floor_us,
                'bound': bound, 'gpu_us': gpu_us, 'wire_us': wire_us,
                'bytes': max(wire_bytes), 'dependencies': shape.dependencies, 'round_trips': counts['round_trips'],
                'commands': counts['commands'], 'steps': steps,
                'runs': len(step)}

    def cells(self):
        rtts = QUICK['round_trips_us'] if self.quick else ROUND_TRIPS_US
        gbits = QUICK['gbits'] if self.quick else GBITS
        for shape in SHAPES:
            wire_bytes = self.bytes_of_step(shape)
            for rtt_us in rtts:
                for gbit in gbits:
                    yield self.cell(shape, wire_bytes, rtt_us, gbit)


def table(cells):
    columns = [('rtt us', 'rtt_us', '{}'), ('Gb/s', 'gbit', '{}'), ('step us', 'step_us', '{:.0f}'),
               ('floor us', 'floor_us', '{:.0f}'), ('ratio', 'ratio', '{:.2f}'), ('median us', 'median_us', '{:.0f}'),
               ('ratio', 'median_ratio', '{:.2f}'), ('bound by', 'bound', '{}'),
               ('GPU us', 'gpu_us', '{:.0f}'), ('wire us', 'wire_us', '{:.0f}'), ('waits', 'dependencies', '{}'),
               ('round trips', 'round_trips', '{:.2f}'), ('commands', 'commands', '{:.0f}')]
    rows = [[cell['program'], *(how.format(cell[key]) for _, key, how in columns)] for cell in cells]
    return programs.table(rows, ['program', *(name for name, _, _ in columns)])


def summary(cells):
    good = [sum(cell[key] <= RATIO_WANTED for cell in cells) for key in ('ratio', 'median_ratio')]
    return f'within {RATIO_WANTED} of the floor: {good[0]} of {len(cells)} by their best steps, {good[1]} by the median'


def run(work, quick):
    for shape in SHAPES:
        found = next(program for program in programs.ours() if program.name == shape.name)
        problem = found.compile(os.path.join(work, shape.name))
        if problem:
            raise SystemExit(problem)
    with programs.Pool(programs.find_tide(), os.path.join(work, 'pool'), 1) as pool:
        return list(Bench(pool, work, quick).cells())
