// Host memory that kernels reach: what the client maps, and where it is not shared, keeps equal to its own.

#include <cstring>

#include "calls.h"
#include "serve.h"

namespace tide {
namespace {

// A kernel may be looking: an aligned word changes at once.
void store(uint64_t to, const std::byte* from, uint64_t bytes) {
  while (bytes != 0) {
    if (to % 8 == 0 && bytes >= 8) {
      uint64_t word = 0;
      memcpy(&word, from, sizeof word);
      __atomic_store_n(reinterpret_cast<uint64_t*>(to), word, __ATOMIC_RELEASE);
      to += 8, from += 8, bytes -= 8;
    } else if (to % 4 == 0 && bytes >= 4) {
      uint32_t word = 0;
      memcpy(&word, from, sizeof word);
      __atomic_store_n(reinterpret_cast<uint32_t*>(to), word, __ATOMIC_RELEASE);
      to += 4, from += 4, bytes -= 4;
    } else {
      *reinterpret_cast<std::byte*>(to++) = *from++;
      --bytes;
    }
  }
}

bool touchable(Session& session, uint64_t address, uint64_t bytes) {
  return session.host_memory().covers(address, bytes) || session.libraries().managed(address, bytes);
}

}  // namespace

CUresult serve_tideMapHost(Session& session, const command::MapHost& command, Received& q, Outputs&) {
  const CUresult result =
      session.host_memory().map(command.address, command.bytes, command.shared != 0, session.replaying());
  if (result == CUDA_ERROR_NOT_READY) return kAgain;
  if (result == CUDA_SUCCESS) session.objects().add(ObjectKind::kHost, command.address, q.header(), q.payload());
  return result;
}

CUresult serve_tideUnmapHost(Session& session, const command::UnmapHost& command, Received&, Outputs&) {
  const CUresult result = session.host_memory().unmap(command.address, command.bytes);
  if (result == CUDA_SUCCESS) session.objects().end(ObjectKind::kHost, command.address);
  return result;
}

CUresult serve_tideWriteHost(Session& session, const command::WriteHost& command, Received& q, Outputs&) {
  if (!touchable(session, command.address, command.bytes)) return CUDA_ERROR_INVALID_VALUE;
  store(command.address, q.tail().data(), command.bytes);
  return CUDA_SUCCESS;
}

CUresult serve_tideReadHost(Session& session, const command::ReadHost& command, Received&, Outputs& a) {
  if (!touchable(session, command.address, command.bytes)) return CUDA_ERROR_INVALID_VALUE;
  auto* to = a.out<std::byte>(command.bytes);
  if (to == nullptr) return CUDA_ERROR_INVALID_VALUE;
  memcpy(to, reinterpret_cast<const void*>(command.address), command.bytes);
  return CUDA_SUCCESS;
}

}  // namespace tide
