#pragma once

// Functions that are made of other functions of the driver API: those of earlier versions, with their own ABI
// (libraries still look the old symbols up), batches, green contexts, and what a device without a capability answers.
// The same source for the software GPU and for the preload library.
//
// The first version had 32-bit addresses and sizes. An address that does not fit is not given out.

#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <cuda.h>

#include <cstdint>
#include <vector>

namespace tide::composed {

// Each of the two libraries: the streams of a context that the program made, without its default streams.
CUresult streams_of(CUcontext context, std::vector<CUstream>* streams);

// `event` happens when everything that the context's streams hold by now is done.
CUresult record_all(CUcontext context, CUevent event);
// Everything that its streams get from now on waits for `event`.
CUresult wait_all(CUcontext context, CUevent event);

// Each of the two libraries, when it starts: warnings and errors can be read by the program from then on.
void keep_logs();
// In a forked child, whose parent's threads may have been logging.
void renew_logs();

inline bool fits(size_t value) { return value <= UINT32_MAX; }
inline unsigned clamped(size_t value) { return fits(value) ? static_cast<unsigned>(value) : UINT32_MAX; }

}  // namespace tide::composed
