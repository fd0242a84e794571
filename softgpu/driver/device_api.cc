// Entry points: cuDevice*, primary contexts among them.

#include <cstdio>
#include <cstring>

#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

template <typename Body>
CUresult with_device(CUdevice device, const void* output, Body body) {
  return guarded([&]() -> CUresult {
    if (output == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Device* found = find_device(device);
    return found == nullptr ? CUDA_ERROR_INVALID_DEVICE : body(*found);
  });
}

template <typename Body>
CUresult with_device(CUdevice device, Body body) {
  return with_device(device, &device, body);
}

CUresult get_uuid(CUuuid* uuid, CUdevice device) {
  return with_device(device, uuid, [&](Device& found) {
    std::memcpy(uuid->bytes, found.identity.uuid, sizeof(uuid->bytes));
    return CUDA_SUCCESS;
  });
}

CUresult reset_primary(CUdevice device) {
  return with_device(device, [](Device& found) {
    found.reset_primary();
    return CUDA_SUCCESS;
  });
}

CUresult set_primary_flags(CUdevice device, unsigned flags) {
  return with_device(device, [&](Device& found) -> CUresult {
    if ((flags & ~unsigned{CU_CTX_FLAGS_MASK}) != 0) return CUDA_ERROR_INVALID_VALUE;
    found.primary()->flags = flags;
    return CUDA_SUCCESS;
  });
}

template <typename Body>
CUresult with_pair(const void* output, CUdevice a, CUdevice b, Body body) {
  return guarded([&]() -> CUresult {
    if (output == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (find_device(a) == nullptr || find_device(b) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return body();
  });
}

}  // namespace

extern "C" CUresult cuDeviceGetCount(int* count) {
  return guarded([&]() -> CUresult {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *count = static_cast<int>(driver().devices.size());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return with_device(ordinal, device, [&](Device& found) {
    *device = found.index;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return with_device(device, name, [&](Device& found) -> CUresult {
    if (length <= 0) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(name, static_cast<size_t>(length), "%s", found.name.c_str());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) { return get_uuid(uuid, device); }

extern "C" CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) { return get_uuid(uuid, device); }

extern "C" CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return with_device(device, bytes, [&](Device& found) {
    *bytes = found.memory_bytes;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return with_device(device, value, [&](Device& found) {
    // Callers ask for attributes that their header knows and ours does not: no value of the enumeration.
    int which = 0;
    std::memcpy(&which, &attribute, sizeof(which));
    return found.attribute(which, value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  });
}

extern "C" CUresult cuDeviceGetExecAffinitySupport(int* value, CUexecAffinityType type, CUdevice device) {
  return with_device(device, value, [&](Device&) -> CUresult {
    if (type != CU_EXEC_AFFINITY_TYPE_SM_COUNT) return CUDA_ERROR_INVALID_VALUE;
    *value = 0;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  return with_device(device, major, [&](Device& found) -> CUresult {
    if (minor == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *major = found.profile.major;
    *minor = found.profile.minor;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetProperties(CUdevprop* properties, CUdevice device) {
  return with_device(device, properties, [&](Device& found) {
    *properties = {};
    properties->maxThreadsPerBlock = kThreadsPerBlock;
    const int block[3] = {1024, 1024, 64}, grid[3] = {2147483647, 65535, 65535};
    std::memcpy(properties->maxThreadsDim, block, sizeof(block));
    std::memcpy(properties->maxGridSize, grid, sizeof(grid));
    properties->sharedMemPerBlock = kSharedPerBlock;
    properties->totalConstantMemory = 65536;
    properties->SIMDWidth = 32;
    properties->memPitch = 2147483647;
    properties->regsPerBlock = kRegistersPerMultiprocessor;
    properties->clockRate = found.profile.clock_khz;
    properties->textureAlign = 512;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetPCIBusId(char* text, int length, CUdevice device) {
  return with_device(device, text, [&](Device& found) -> CUresult {
    if (length <= 0) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(text, static_cast<size_t>(length), "%s", found.pci_text().c_str());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetByPCIBusId(CUdevice* device, const char* text) {
  return guarded([&]() -> CUresult {
    if (device == nullptr || text == nullptr) return CUDA_ERROR_INVALID_VALUE;
    unsigned domain = 0, bus = 0, slot = 0;
    if (std::sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3) {
      domain = 0;
      if (std::sscanf(text, "%x:%x", &bus, &slot) != 2) return CUDA_ERROR_INVALID_VALUE;
    }
    for (const auto& found : driver().devices) {
      const DeviceIdentity& id = found->identity;
      if (id.pci_domain == static_cast<int>(domain) && id.pci_bus == static_cast<int>(bus) &&
          id.pci_device == static_cast<int>(slot)) {
        *device = found->index;
        return CUDA_SUCCESS;
      }
    }
    return CUDA_ERROR_INVALID_DEVICE;
  });
}

extern "C" CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  return with_pair(can, device, peer, [&]() -> CUresult {
    *can = device != peer;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute attribute, CUdevice source,
                                            CUdevice destination) {
  return with_pair(value, source, destination, [&]() -> CUresult {
    if (source == destination) return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
      case CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK:
        *value = 0;
        return CUDA_SUCCESS;
      case CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED:
      case CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED:
        *value = 1;
        return CUDA_SUCCESS;
      case CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED:
        *value = 0;
        return CUDA_SUCCESS;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  });
}

extern "C" CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return with_device(device, context, [&](Device& found) {
    *context = found.primary()->handle;
    return found.retain_primary();
  });
}

extern "C" CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  return with_device(device, [](Device& found) { return found.release_primary(); });
}

extern "C" CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return cuDevicePrimaryCtxRelease(device); }

extern "C" CUresult cuDevicePrimaryCtxReset(CUdevice device) { return reset_primary(device); }

extern "C" CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) { return reset_primary(device); }

extern "C" CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags) {
  return set_primary_flags(device, flags);
}

extern "C" CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags) {
  return set_primary_flags(device, flags);
}

extern "C" CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int* flags, int* active) {
  return with_device(device, flags, [&](Device& found) -> CUresult {
    if (active == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *flags = found.primary()->flags;
    *active = found.primary_active();
    return CUDA_SUCCESS;
  });
}
