"""What is run: the environments, the frameworks in them, and one row a case with the outcome that is expected."""
from dataclasses import dataclass, field


@dataclass
class Environment:
    """Python packages that are installed together. The folder is made once and again when the requirements change."""
    requirements: str      # path from the repository's root
    gigabytes: int         # of disk, while it is installed
    folder: str            # in the cache
    apart: dict = field(default_factory=dict)  # folder in it -> one more requirement, which would not fit the others


ENVIRONMENTS = {
    'small': Environment('tests/frameworks/small.txt', 3, 'frameworks-small',
                         {'newer': 'nvidia-cuda-runtime==13.5.37'}),
    'pytorch': Environment('tests/pytorch/requirements.txt', 8, 'pytorch'),
    'jax': Environment('tests/frameworks/jax.txt', 8, 'frameworks-jax'),
}


@dataclass
class Case:
    name: str
    fails: str = ''    # a pattern of the error that it must end with; '' when it must work
    why: str = ''      # the reason for that
    variables: dict = field(default_factory=dict)
    seconds: int = 120  # limit


@dataclass
class Framework:
    """`variables` may name {work}, a new folder, {here}, this one, {venv}, the environment, and {site}, its packages; a
    variable that is None is taken away. `library_path` goes behind what is there."""
    name: str
    environment: str
    program: str
    profile: str
    cases: list
    variables: dict = field(default_factory=dict)
    library_path: str = ''
    needs_pool: str = ''  # why there is nothing to run with --direct


def works(*names):
    return [Case(name) for name in names]


def runtime(name, library, site='{site}'):
    return Framework(
        name, 'small', 'runtime_cases.py', '8.0',
        works('version_and_device', 'registered_kernel', 'registered_variable', 'streams_events_and_pinned_memory') +
        [Case('impossible_launch', 'invalid (configuration )?argument', 'as on a GPU')],
        {'FRAMEWORKS_CUDART': library, 'FRAMEWORKS_SITE': site})


MACHINE_CODE = 'the kernels are machine code, which the software GPU does not run'
TRITON = {'TRITON_PTXAS_PATH': '{here}/ptxas', 'TRITON_PTXAS_BLACKWELL_PATH': '{here}/ptxas',
          'TRITON_CACHE_DIR': '{work}/triton', 'TORCHINDUCTOR_CACHE_DIR': '{work}/inductor'}

FRAMEWORKS = [
    Framework('CuPy', 'small', 'cupy_cases.py', '13.0', [
        *works('elementwise', 'reduction', 'kernels_from_expressions', 'raw_kernel', 'raw_module', 'fusion', 'sorting',
               'scan', 'indexing', 'random_of_curand', 'streams_and_events', 'graph', 'pinned_memory',
               'managed_memory', 'asynchronous_pool', 'texture'),
        Case('wild_address', 'cudaErrorIllegalAddress', 'as on a GPU'),
        Case('machine_code', 'CUDA_ERROR_NO_BINARY_FOR_GPU', MACHINE_CODE, {'CUPY_COMPILE_WITH_PTX': '0'}),
    ], {'CUPY_COMPILE_WITH_PTX': '1', 'CUPY_CACHE_DIR': '{work}/cupy'}),
    Framework('Numba', 'small', 'numba_cases.py', '8.0', [
        *works('elementwise', 'matrix_product_in_shared_memory', 'atomics', 'warp_shuffle', 'reduction', 'vectorized',
               'device_functions_and_local_memory', 'random_numbers', 'grid_synchronisation',
               'streams_and_pinned_memory', 'mapped_memory'),
        Case('errors_in_kernels', 'ZeroDivisionError', 'as on a GPU'),
    ], library_path='{work}/no_nvjitlink'),
    runtime('CUDA runtime 11.8', 'libcudart.so.11.0'),
    runtime('CUDA runtime 12.9', 'libcudart.so.12'),
    runtime('CUDA runtime 13.5', 'libcudart.so.13', '{venv}/newer'),
    Framework('Triton', 'pytorch', 'triton_cases.py', '8.0', [
        *works('vector_add', 'softmax_of_rows', 'matrix_product', 'matrix_product_on_tensor_cores', 'atomics', 'scan'),
        Case('machine_code', 'no kernel image|device kernel image is invalid', MACHINE_CODE,
             {'TRITON_PTXAS_PATH': None, 'TRITON_PTXAS_BLACKWELL_PATH': None}),
    ], TRITON),
    Framework('PyTorch', 'pytorch', 'torch_cases.py', '13.0', [
        *works('training', 'operators', 'cuda_graph', 'pinned_memory', 'data_loader', 'profiler',
               'compiled_without_inductor'),
        Case('compiled', variables={'SOFTGPU_PROFILE': '8.0'}, seconds=240),
        Case('own_operator', 'no kernel image is available', MACHINE_CODE),
    ], TRITON),
    Framework('JAX', 'jax', 'jax_cases.py', '13.0', [
        *works('devices', 'elementwise', 'reduction', 'matrix_product', 'gradient', 'loop_and_condition',
               'random_numbers', 'sorting', 'convolution', 'linear_algebra'),
    ], {'JAX_PLATFORMS': 'cuda,cpu', 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'PATH': '{work}/bin:{path}',
        'XLA_FLAGS': '--xla_gpu_autotune_level=0'}, needs_pool='XLA takes no GPU without NVML'),
]

# What continuous integration installs and runs; the rest takes gigabytes.
QUICK = ('CuPy', 'Numba', 'CUDA runtime 11.8', 'CUDA runtime 12.9', 'CUDA runtime 13.5')
