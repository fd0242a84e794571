// Host memory that kernels reach: what the client maps, and where it is not shared, keeps equal to its own.

#include <cstring>
#include <vector>

#include "api/payload.h"
#include "base/words.h"
#include "calls.h"
#include "serve.h"

namespace tide {
namespace {

bool touchable(Session& session, uint64_t address, uint64_t bytes) {
  return session.host_memory().covers(address, bytes) || session.libraries().managed(address, bytes);
}

bool whole_pages(uint64_t address, uint64_t bytes) {
  return address % PagesTold::kPage == 0 && bytes % PagesTold::kPage == 0;
}

}  // namespace

CUresult serve_tideMapHost(Session& session, const command::MapHost& command, Received& q, Outputs&) {
  const CUresult result = session.host_memory().map(command.address, command.bytes, command.shared != 0,
                                                    command.told != 0, session.replaying());
  if (result == CUDA_ERROR_NOT_READY) return kAgain;
  if (result == CUDA_SUCCESS) {
    session.objects().add(ObjectKind::kHost, command.address, q.header(), q.payload());
  } else if ((q.header().flags & kCommandAnswer) == 0) {
    session.host_memory().refuse(command.address, command.bytes);
  }
  return result;
}

CUresult serve_tideUnmapHost(Session& session, const command::UnmapHost& command, Received&, Outputs&) {
  const CUresult result = session.host_memory().unmap(command.address, command.bytes);
  if (result == CUDA_SUCCESS) session.objects().end(ObjectKind::kHost, command.address);
  return result;
}

CUresult serve_tideWriteHost(Session& session, const command::WriteHost& command, Received& q, Outputs&) {
  const bool in_one_page =
      command.address / PagesTold::kPage == (command.address + command.bytes - 1) / PagesTold::kPage;
  if (command.bytes == 0 || !touchable(session, command.address, command.bytes) ||
      command.mask_bytes != mask_words(command.bytes) * 8 || (command.digest != 0 && !in_one_page)) {
    const bool in_vain = command.bytes != 0 && session.host_memory().refused(command.address, command.bytes);
    return in_vain ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }
  std::vector<uint64_t> mask(command.mask_bytes / 8);
  memcpy(mask.data(), q.tail().data(), command.mask_bytes);
  const auto bytes = q.tail().subspan(command.mask_bytes);
  store_masked(reinterpret_cast<std::byte*>(command.address), bytes.data(), command.bytes, mask.data());
  uint64_t first = 0;
  PagesTold* const told = session.host_memory().told(command.address, command.bytes, &first);
  if (told != nullptr) told->written(first, command, bytes);
  return CUDA_SUCCESS;
}

CUresult serve_tideReadHost(Session& session, const command::ReadHost& command, Received&, Outputs& a) {
  if (!touchable(session, command.address, command.bytes)) return CUDA_ERROR_INVALID_VALUE;
  auto* to = a.out<std::byte>(command.bytes);
  if (to == nullptr) return CUDA_ERROR_INVALID_VALUE;
  memcpy(to, reinterpret_cast<const void*>(command.address), command.bytes);
  return CUDA_SUCCESS;
}

// A GPU may go on writing: what is sent is copied first, and remembered as it was copied.
CUresult serve_tideChangedHost(Session& session, const command::ChangedHost& command, Received&, Outputs& a) {
  constexpr uint64_t kPage = PagesTold::kPage;
  uint64_t first = 0;
  PagesTold* const told = session.host_memory().told(command.address, command.bytes, &first);
  if (told == nullptr && session.host_memory().refused(command.address, command.bytes)) {
    auto* const nothing = a.out<ChangedHostAnswer>(1);
    if (nothing == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *nothing = {command.bytes, 0};
    return CUDA_SUCCESS;
  }
  if (told == nullptr || !whole_pages(command.address, command.bytes) || command.bytes > kHostQuestionBytes)
    return CUDA_ERROR_INVALID_VALUE;
  std::vector<uint32_t> changed;
  const auto* const pages = reinterpret_cast<const std::byte*>(command.address);
  uint32_t looked = 0;
  for (; looked < command.bytes / kPage && changed.size() < kHostPieceBytes / kPage; ++looked) {
    if (!told->knows(first + looked, pages + looked * kPage)) changed.push_back(looked);
  }
  auto* const answer = a.out<ChangedHostAnswer>(1);
  auto* const numbers = a.out<uint32_t>(changed.size());
  auto* const bytes = a.out<std::byte>(changed.size() * kPage);
  if (answer == nullptr || numbers == nullptr || bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *answer = {looked * kPage, changed.size()};
  for (size_t i = 0; i < changed.size(); ++i) {
    std::byte* const copy = bytes + i * kPage;
    numbers[i] = changed[i];
    memcpy(copy, pages + changed[i] * kPage, kPage);
    told->answered(first + changed[i], {copy, kPage});
  }
  return CUDA_SUCCESS;
}

}  // namespace tide
