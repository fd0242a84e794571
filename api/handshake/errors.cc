// Names and texts of the driver's result codes.

#include "api/handshake/handshake.h"

namespace tide::handshake {
namespace {

struct ErrorText {
  CUresult code;
  const char* name;
  const char* text;
};

#define TIDE_ERROR(code, text) \
  { code, #code, text }

// In the order of their numbers.
constexpr ErrorText kErrors[] = {
    TIDE_ERROR(CUDA_SUCCESS, "no error"),
    TIDE_ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    TIDE_ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    TIDE_ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    TIDE_ERROR(CUDA_ERROR_DEINITIALIZED, "driver shutting down"),
    TIDE_ERROR(CUDA_ERROR_PROFILER_DISABLED, "profiler disabled while using external profiling tool"),
    TIDE_ERROR(CUDA_ERROR_PROFILER_NOT_INITIALIZED, "profiler not initialized: call cudaProfilerInitialize()"),
    TIDE_ERROR(CUDA_ERROR_PROFILER_ALREADY_STARTED, "profiler already started"),
    TIDE_ERROR(CUDA_ERROR_PROFILER_ALREADY_STOPPED, "profiler already stopped"),
    TIDE_ERROR(CUDA_ERROR_STUB_LIBRARY, "CUDA driver is a stub library"),
    TIDE_ERROR(CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER, "API call is not supported in the installed CUDA driver"),
    TIDE_ERROR(CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable"),
    TIDE_ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    TIDE_ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    TIDE_ERROR(CUDA_ERROR_DEVICE_NOT_LICENSED, "device doesn't have valid license"),
    TIDE_ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    TIDE_ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    TIDE_ERROR(CUDA_ERROR_CONTEXT_ALREADY_CURRENT, "context already current"),
    TIDE_ERROR(CUDA_ERROR_MAP_FAILED, "mapping of buffer object failed"),
    TIDE_ERROR(CUDA_ERROR_UNMAP_FAILED, "unmapping of buffer object failed"),
    TIDE_ERROR(CUDA_ERROR_ARRAY_IS_MAPPED, "array is mapped"),
    TIDE_ERROR(CUDA_ERROR_ALREADY_MAPPED, "resource already mapped"),
    TIDE_ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    TIDE_ERROR(CUDA_ERROR_ALREADY_ACQUIRED, "resource already acquired"),
    TIDE_ERROR(CUDA_ERROR_NOT_MAPPED, "resource not mapped"),
    TIDE_ERROR(CUDA_ERROR_NOT_MAPPED_AS_ARRAY, "resource not mapped as array"),
    TIDE_ERROR(CUDA_ERROR_NOT_MAPPED_AS_POINTER, "resource not mapped as pointer"),
    TIDE_ERROR(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"),
    TIDE_ERROR(CUDA_ERROR_UNSUPPORTED_LIMIT, "limit is not supported on this architecture"),
    TIDE_ERROR(CUDA_ERROR_CONTEXT_ALREADY_IN_USE, "exclusive-thread device already in use by a different thread"),
    TIDE_ERROR(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "peer access is not supported between these two devices"),
    TIDE_ERROR(CUDA_ERROR_INVALID_PTX, "a PTX JIT compilation failed"),
    TIDE_ERROR(CUDA_ERROR_INVALID_GRAPHICS_CONTEXT, "invalid OpenGL or DirectX context"),
    TIDE_ERROR(CUDA_ERROR_NVLINK_UNCORRECTABLE, "uncorrectable NVLink error detected during the execution"),
    TIDE_ERROR(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, "PTX JIT compiler library not found"),
    TIDE_ERROR(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain"),
    TIDE_ERROR(CUDA_ERROR_JIT_COMPILATION_DISABLED, "PTX JIT compilation was disabled"),
    TIDE_ERROR(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY, "the provided execution affinity is not supported"),
    TIDE_ERROR(CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC, "the operation is not supported by device-side synchronization"),
    TIDE_ERROR(CUDA_ERROR_CONTAINED, "the error is contained to the process"),
    TIDE_ERROR(CUDA_ERROR_INVALID_SOURCE, "device kernel image is invalid"),
    TIDE_ERROR(CUDA_ERROR_FILE_NOT_FOUND, "file not found"),
    TIDE_ERROR(CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND, "shared object symbol not found"),
    TIDE_ERROR(CUDA_ERROR_SHARED_OBJECT_INIT_FAILED, "shared object initialization failed"),
    TIDE_ERROR(CUDA_ERROR_OPERATING_SYSTEM, "OS call failed or operation not supported on this OS"),
    TIDE_ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    TIDE_ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    TIDE_ERROR(CUDA_ERROR_LOSSY_QUERY, "attempted introspection would be semantically lossy"),
    TIDE_ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    TIDE_ERROR(CUDA_ERROR_NOT_READY, "device not ready"),
    TIDE_ERROR(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    TIDE_ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    TIDE_ERROR(CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated"),
    TIDE_ERROR(CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING, "launch uses incompatible texturing mode"),
    TIDE_ERROR(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled"),
    TIDE_ERROR(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "peer access has not been enabled"),
    TIDE_ERROR(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, "cannot set while device is active in this process"),
    TIDE_ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    TIDE_ERROR(CUDA_ERROR_ASSERT, "device-side assert triggered"),
    TIDE_ERROR(CUDA_ERROR_TOO_MANY_PEERS, "peer mapping resources exhausted"),
    TIDE_ERROR(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
               "part or all of the requested memory range is already mapped"),
    TIDE_ERROR(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region"),
    TIDE_ERROR(CUDA_ERROR_HARDWARE_STACK_ERROR, "hardware stack error"),
    TIDE_ERROR(CUDA_ERROR_ILLEGAL_INSTRUCTION, "an illegal instruction was encountered"),
    TIDE_ERROR(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    TIDE_ERROR(CUDA_ERROR_INVALID_ADDRESS_SPACE, "operation not supported on global/shared address space"),
    TIDE_ERROR(CUDA_ERROR_INVALID_PC, "invalid program counter"),
    TIDE_ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    TIDE_ERROR(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "too many blocks in cooperative launch"),
    TIDE_ERROR(CUDA_ERROR_TENSOR_MEMORY_LEAK, "tensor memory was not released"),
    TIDE_ERROR(CUDA_ERROR_NOT_PERMITTED, "operation not permitted"),
    TIDE_ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    TIDE_ERROR(CUDA_ERROR_SYSTEM_NOT_READY, "system not yet initialized"),
    TIDE_ERROR(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "system has unsupported display driver / cuda driver combination"),
    TIDE_ERROR(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, "forward compatibility was attempted on non supported HW"),
    TIDE_ERROR(CUDA_ERROR_MPS_CONNECTION_FAILED,
               "MPS client failed to connect to the MPS control daemon or the MPS server"),
    TIDE_ERROR(CUDA_ERROR_MPS_RPC_FAILURE, "MPS client failed to communicate with the MPS server"),
    TIDE_ERROR(CUDA_ERROR_MPS_SERVER_NOT_READY, "MPS server is not ready to accept new MPS client requests"),
    TIDE_ERROR(CUDA_ERROR_MPS_MAX_CLIENTS_REACHED, "MPS server has no room for another client"),
    TIDE_ERROR(CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED, "MPS server has no room for another connection"),
    TIDE_ERROR(CUDA_ERROR_MPS_CLIENT_TERMINATED, "MPS client has been terminated by the server"),
    TIDE_ERROR(CUDA_ERROR_CDP_NOT_SUPPORTED, "the device does not support dynamic parallelism of this kind"),
    TIDE_ERROR(CUDA_ERROR_CDP_VERSION_MISMATCH, "dynamic parallelism version mismatch"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE, "operation would result in a merge of separate capture sequences"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not ended in the same stream as it began"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
               "operation would make the legacy stream depend on a capturing blocking stream"),
    TIDE_ERROR(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"),
    TIDE_ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
               "attempt to terminate a thread-local capture sequence from another thread"),
    TIDE_ERROR(CUDA_ERROR_TIMEOUT, "wait operation timed out"),
    TIDE_ERROR(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE,
               "the graph update was not performed because it included changes which violated constraints"),
    TIDE_ERROR(CUDA_ERROR_EXTERNAL_DEVICE, "an asynchronous operation on another device failed"),
    TIDE_ERROR(CUDA_ERROR_INVALID_CLUSTER_SIZE, "invalid cluster size"),
    TIDE_ERROR(CUDA_ERROR_FUNCTION_NOT_LOADED, "the function is not loaded"),
    TIDE_ERROR(CUDA_ERROR_INVALID_RESOURCE_TYPE, "invalid resource type"),
    TIDE_ERROR(CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION, "invalid resource configuration"),
    TIDE_ERROR(CUDA_ERROR_KEY_ROTATION, "a key rotation was triggered"),
    TIDE_ERROR(CUDA_ERROR_UNKNOWN, "unknown error"),
};

#undef TIDE_ERROR

const ErrorText* find(CUresult code) {
  for (const ErrorText& error : kErrors) {
    if (error.code == code) return &error;
  }
  return nullptr;
}

}  // namespace

const char* error_name(CUresult code) {
  const ErrorText* error = find(code);
  return error == nullptr ? nullptr : error->name;
}

const char* error_text(CUresult code) {
  const ErrorText* error = find(code);
  return error == nullptr ? nullptr : error->text;
}

}  // namespace tide::handshake
