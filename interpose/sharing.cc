#include "interpose/sharing.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "interpose/process.h"

namespace tide {

SharedHandle own_handle(Vgpu& vgpu, SharedKind kind, uint64_t name) {
  SharedHandle handle;
  const uint8_t* session = vgpu.channel().session();
  memcpy(&handle.owner_low, session, sizeof handle.owner_low);
  memcpy(&handle.owner_high, session + sizeof handle.owner_low, sizeof handle.owner_high);
  handle.vgpu = vgpu.number;
  handle.kind = kind;
  handle.name = name;
  return handle;
}

CUresult find_owner(Process& process, const SharedHandle& handle, SharedKind kind, Vgpu** vgpu) {
  if (handle.magic != kSharedMagic || handle.kind != kind) return CUDA_ERROR_INVALID_VALUE;
  *vgpu = handle.vgpu < kVgpusMax ? process.by_number[handle.vgpu] : nullptr;
  if (*vgpu == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  return activate(*(*vgpu)->primary);
}

// One end of a socket pair, with the handle in it as a packet that is only ever looked at.
CUresult make_shared_descriptor(const SharedHandle& handle, int* given, int* kept) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  if (send(pair[0], &handle, sizeof handle, MSG_NOSIGNAL | MSG_DONTWAIT) != ssize_t(sizeof handle)) {
    close(pair[0]);
    close(pair[1]);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  *kept = pair[0];
  *given = pair[1];
  return CUDA_SUCCESS;
}

bool read_shared_descriptor(int fd, SharedHandle* handle) {
  return recv(fd, static_cast<void*>(handle), sizeof *handle, MSG_PEEK | MSG_DONTWAIT) == ssize_t(sizeof *handle) &&
         handle->magic == kSharedMagic;
}

bool shared_descriptor_open(int kept) {
  pollfd look = {kept, 0, 0};
  return poll(&look, 1, 0) == 0;
}

}  // namespace tide
