#pragma once

// What the files of the handshake share. Not for other rooms.

#include <cuda.h>

#include <cstdint>

#include "api/handshake/handshake.h"

namespace tide::handshake {

const Hooks& hooks();

// Context-local storage: the slots of the table of that name. `context` null means the calling thread's. get() takes
// no lock.
using StorageDestructor = void (*)(CUcontext context, void* key, void* value);
CUresult put_context_storage(CUcontext context, void* key, void* value, StorageDestructor destructor);
CUresult delete_context_storage(CUcontext context, void* key);
CUresult get_context_storage(void** value, CUcontext context, void* key);

// Addresses that enter the integrity answer; the tables never move.
const void* cudart_interface_table();
const void* integrity_table();

// The integrity slot. Fails with CUDA_ERROR_NOT_SUPPORTED where the build left it out.
CUresult integrity_check(uint32_t version, uint64_t unix_seconds, uint64_t answer[2]);

}  // namespace tide::handshake
