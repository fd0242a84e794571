"""A throw-away virtual machine with Debian's kernel and soft-RoCE, whose files are this machine's own, read only.

QEMU emulates the processor (TCG), so it needs no /dev/kvm and no image: what was built here runs there unchanged. What
is written there is lost, except under /mnt.
"""

import glob
import hashlib
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KERNEL = 'linux-image-amd64'  # the cloud flavour has no rdma_rxe
BOOTS = 3  # an emulated machine on a busy one may find its timer too slow, and give up
# What is loaded, with what it depends on, in this order; rdma_rxe finds no checksum without crc32_generic.
MODULES = ('virtio_pci virtio_console 9pnet_virtio 9p overlay veth sch_netem sch_tbf crc32_generic crc32c_generic '
           'ib_uverbs rdma_ucm rdma_rxe').split()
PROGRAMS = {  # program -> Debian's package
    'qemu-system-x86_64': 'qemu-system-x86', 'busybox': 'busybox-static', 'cpio': 'cpio', 'depmod': 'kmod',
    'modprobe': 'kmod', 'rdma': 'iproute2', 'ip': 'iproute2', 'tc': 'iproute2', 'sysctl': 'procps',
    'ibv_devinfo': 'ibverbs-utils', 'setpriv': 'util-linux', 'apt-get': 'apt', 'dpkg-deb': 'dpkg',
}
LIBRARIES = {'libibverbs/librxe-*.so': 'ibverbs-providers'}
PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'


class Unavailable(Exception):
    """This machine cannot run the virtual machine; says why and what to do."""


class Failed(Exception):
    """The virtual machine did not do what it should."""


def cache_folder():
    base = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return os.path.join(base, 'tidepool', 'rdma-vm')


def find(program):
    return shutil.which(program, path=PATH)


def check_packages():
    missing = {package for program, package in PROGRAMS.items() if not find(program)}
    for pattern, package in LIBRARIES.items():
        if not glob.glob(f'/usr/lib/*/{pattern}'):
            missing.add(package)
    if os.uname().machine != 'x86_64':
        raise Unavailable(f'needs an x86-64 machine; this one is {os.uname().machine}')
    if missing:
        raise Unavailable('packages are missing: apt-get install ' + ' '.join(sorted(missing)))


# The kernel ----------------------------------------------------------------------------------------------------------

def download(folder):
    """The kernel's package, as the name of a file; one that is there already is taken."""
    found = sorted(glob.glob(os.path.join(folder, 'linux-image-*.deb')))
    if found:
        return found[-1]
    depends = subprocess.run(['apt-cache', 'depends', KERNEL], capture_output=True, text=True).stdout
    match = re.search(r'Depends: (linux-image-\S+)', depends)
    if not match:
        raise Unavailable(f'apt knows no package {KERNEL}: apt-get update, or a mirror of Debian in sources.list')
    with tempfile.TemporaryDirectory(dir=folder) as arriving:
        done = subprocess.run(['apt-get', 'download', match[1]], cwd=arriving, capture_output=True, text=True,
                              timeout=600)
        packages = os.listdir(arriving)
        if done.returncode != 0 or len(packages) != 1:
            reason = done.stderr.strip().splitlines()[-1:] or ['no reason given']
            raise Unavailable(f'apt-get download {match[1]}: {reason[0]}')
        kept = os.path.join(folder, packages[0])
        os.rename(os.path.join(arriving, packages[0]), kept)
    return kept


def uncompressed(image):
    """The kernel proper out of its self-extracting image: QEMU boots that at once, without emulating the extraction."""
    xz, zstd = image.find(b'\xfd7zXZ\x00'), image.find(b'\x28\xb5\x2f\xfd')
    if xz >= 0:
        kernel = lzma.LZMADecompressor().decompress(image[xz:])
    elif zstd >= 0 and find('zstd'):
        kernel = subprocess.run([find('zstd'), '-dcq'], input=image[zstd:], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL).stdout  # what follows the kernel makes it complain
    else:
        raise Unavailable('the kernel is compressed by what this machine cannot read: apt-get install zstd')
    if not kernel.startswith(b'\x7fELF'):
        raise Unavailable('no kernel found in the package')
    return kernel


def pack_start(root, folder):
    """The first file system, which holds busybox, the modules and `init`."""
    version = os.listdir(os.path.join(root, 'lib', 'modules'))[0]
    subprocess.run([find('depmod'), '-b', root, version], check=True)
    start = os.path.join(root, 'start')
    for name in ('bin', 'proc', 'sys', 'dev', 'modules', 'lower', 'upper', 'top'):
        os.makedirs(os.path.join(start, name))
    shutil.copy(find('busybox'), os.path.join(start, 'bin', 'busybox'))
    shutil.copy(os.path.join(HERE, 'init'), os.path.join(start, 'init'))
    os.chmod(os.path.join(start, 'init'), 0o755)
    order = []
    for module in MODULES:
        shown = subprocess.run([find('modprobe'), '-d', root, '-S', version, '--show-depends', module],
                               capture_output=True, text=True)
        if shown.returncode != 0:
            raise Unavailable(f'{KERNEL} {version} has no module {module}')
        for path in re.findall(r'^insmod (\S+)', shown.stdout, flags=re.M):
            name = os.path.basename(path)
            if name.endswith('.xz'):
                name = name[:-3]
                with lzma.open(path) as packed, open(os.path.join(start, 'modules', name), 'wb') as file:
                    file.write(packed.read())
            else:
                shutil.copy(path, os.path.join(start, 'modules', name))
            if name not in order:
                order.append(name)
    with open(os.path.join(start, 'modules', 'order'), 'w') as file:
        file.write('\n'.join(order) + '\n')
    with open(os.path.join(folder, 'start.cpio'), 'wb') as file:
        names = subprocess.run(['find', '.'], cwd=start, capture_output=True, check=True).stdout
        subprocess.run([find('cpio'), '-o', '-H', 'newc', '--quiet'], cwd=start, input=names, stdout=file, check=True)


def prepare():
    """Fetches and unpacks what the virtual machine boots; returns the folder, which holds vmlinux and start.cpio."""
    check_packages()
    cache = cache_folder()
    os.makedirs(cache, exist_ok=True)
    package = download(cache)
    with open(os.path.join(HERE, 'init'), 'rb') as file:
        recipe = file.read() + ' '.join([package, *MODULES]).encode()
    ready = os.path.join(cache, 'boot-' + hashlib.sha256(recipe).hexdigest()[:12])
    if os.path.isdir(ready):
        return ready
    with tempfile.TemporaryDirectory(dir=cache) as work:
        root, folder = os.path.join(work, 'root'), os.path.join(work, 'boot')
        os.makedirs(folder)
        subprocess.run([find('dpkg-deb'), '-x', package, root], check=True)
        with open(glob.glob(os.path.join(root, 'boot', 'vmlinuz-*'))[0], 'rb') as image, \
                open(os.path.join(folder, 'vmlinux'), 'wb') as file:
            file.write(uncompressed(image.read()))
        pack_start(root, folder)
        try:
            os.rename(folder, ready)  # whoever prepares at the same time makes the same
        except OSError:
            if not os.path.isdir(ready):
                raise
    return ready


# Running -------------------------------------------------------------------------------------------------------------

def qemu_command(boot, share, out, cpus, memory):
    # cpus 0: one that takes 1 ns for each instruction, so that times in it do not depend on this machine's load.
    clock = ['tcg,thread=single', '-icount', 'shift=0'] if cpus == 0 else ['tcg,thread=multi']
    return [
        find('setpriv'), '--pdeathsig', 'KILL',  # never outlives whoever started it
        find('qemu-system-x86_64'), '-M', 'q35', '-accel', *clock, '-cpu', 'max', '-smp', str(max(cpus, 1)),
        '-m', str(memory), '-nodefaults', '-no-reboot', '-display', 'none',
        '-kernel', os.path.join(boot, 'vmlinux'), '-initrd', os.path.join(boot, 'start.cpio'),
        '-append', f'console=ttyS0 loglevel=6 panic=-1 mitigations=off no_timer_check{" tsc=reliable" * (cpus == 0)}',
        '-serial', 'file:' + os.path.join(share, 'console'),
        '-device', 'virtio-serial-pci', '-chardev', f'file,id=out,path=/dev/fd/{out}',
        '-device', 'virtserialport,chardev=out,name=out',
        '-virtfs', 'local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap',
        '-virtfs', f'local,path={share},mount_tag=share,security_model=none,multidevs=remap',
        '-device', 'virtio-rng-pci',
    ]


def console_tail(share, lines=20):
    try:
        with open(os.path.join(share, 'console'), errors='replace') as file:
            return '\n'.join(file.read().replace('\r', '').splitlines()[-lines:])
    except FileNotFoundError:
        return ''


def boot_once(command, share, cpus, memory, limit_s, output):
    """The exit status of the virtual machine's QEMU."""
    for name in ('started', 'status', 'console'):
        if os.path.exists(os.path.join(share, name)):
            os.remove(os.path.join(share, name))
    with open(os.path.join(share, 'start'), 'w') as file:
        file.write(f'. {shlex.quote(HERE)}/guest.sh || exit 125\ncd {shlex.quote(os.getcwd())}\n{command}\n')
    reader, writer = os.pipe()
    machine = subprocess.Popen(qemu_command(prepare(), share, writer, cpus, memory), stdin=subprocess.DEVNULL,
                               pass_fds=[writer])
    os.close(writer)
    timer = threading.Timer(limit_s, machine.kill)
    timer.start()
    try:
        while data := os.read(reader, 65536):
            output(data)
        return machine.wait()
    finally:
        timer.cancel()
        os.close(reader)
        machine.kill()
        machine.wait()


def to_stdout(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def run(command, share=None, cpus=2, memory=3072, limit_s=300, output=to_stdout):
    """Boots, runs the shell command from the present folder, and returns its status. What it prints goes to `output`,
    a function of bytes, as it comes; `share` is the folder that it sees, and may write, as /mnt."""
    if share is None:
        with tempfile.TemporaryDirectory(prefix='tide-vm-') as own:
            return run(command, own, cpus, memory, limit_s, output)
    share = os.path.abspath(share)
    end = time.monotonic() + limit_s
    for _ in range(BOOTS):
        status = boot_once(command, share, cpus, memory, end - time.monotonic(), output)
        if os.path.exists(os.path.join(share, 'started')) or time.monotonic() >= end:
            break
    try:
        with open(os.path.join(share, 'status')) as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        what = f'was ended after {limit_s:g} s' if time.monotonic() >= end else f'ended without a word (QEMU: {status})'
        raise Failed(f'the virtual machine {what}; its console:\n{console_tail(share)}') from None
