"""The CPU reference learns: what the training program is compared with is itself right."""
import subprocess
import sys

lines = subprocess.run([sys.argv[1], sys.argv[2]], check=True, capture_output=True, text=True).stdout.split('\n')
losses = [float(line.split()[3]) for line in lines if line.startswith('step')]
accuracy = float(lines[-2].split()[2])
assert len(losses) == 300, len(losses)
assert losses[-1] < losses[0] / 20, (losses[0], losses[-1])
assert accuracy >= 95, accuracy
print(f'loss {losses[0]:.3f} -> {losses[-1]:.3f}, accuracy {accuracy} %')
