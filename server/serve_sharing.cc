// Commands about memory without an address, and about what processes of the job have of each other.

#include "api/payload.h"
#include "calls.h"
#include "serve.h"

namespace tide {
namespace {

SharedName shared_name(uint64_t low, uint64_t high, uint64_t name) { return {{low, high}, name}; }

// Memory that the driver lacks may come back with work that is under way.
CUresult or_later(Session& session, CUresult result) {
  if (result != CUDA_ERROR_OUT_OF_MEMORY || !session.memory().has_condemned()) return result;
  session.settle();
  return kAgain;
}

CUresult or_again(CUresult result) { return result == CUDA_ERROR_NOT_READY ? kAgain : result; }

}  // namespace

CUresult serve_tideCreatePhysical(Session& session, const command::CreatePhysical& command, Received&, Outputs&) {
  std::shared_ptr<Physical> made;
  const CUresult result = or_later(session, session.memory().create_physical(command.bytes, &made));
  return result == CUDA_SUCCESS ? session.sharing().add_physical(command.name, std::move(made)) : result;
}

CUresult serve_tideReleasePhysical(Session& session, const command::ReleasePhysical& command, Received&, Outputs&) {
  return session.sharing().release_physical(command.name) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult serve_tideMapPhysical(Session& session, const command::MapPhysical& command, Received&, Outputs&) {
  const auto physical = session.sharing().find_physical(command.name);
  if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return or_later(session, session.memory().map_physical(command.address, physical));
}

CUresult serve_tideOpenPhysical(Session& session, const command::OpenPhysical& command, Received&, Outputs&) {
  std::shared_ptr<Physical> opened;
  const SharedName what = shared_name(command.owner_low, command.owner_high, command.owner_name);
  const CUresult result = or_again(session.sharing().open_physical(what, command.bytes, &opened));
  return result == CUDA_SUCCESS ? session.sharing().add_physical(command.name, std::move(opened)) : result;
}

CUresult serve_tideShareMemory(Session& session, const command::ShareMemory& command, Received&, Outputs& a) {
  if (session.library().software && !session.streams().idle()) {  // Sharing::prepare
    session.settle();
    return kAgain;
  }
  MemoryRange span;
  Sharing& sharing = session.sharing();
  const CUresult result = command.address == 0
                              ? sharing.share_physical(command.name)
                              : sharing.share_memory(command.name, command.address, command.bytes, &span);
  if (result != CUDA_SUCCESS) return result;
  auto* answer = a.out<ShareAnswer>(1);
  answer->address = span.address;
  answer->bytes = span.bytes;
  return CUDA_SUCCESS;
}

CUresult serve_tideUnshare(Session& session, const command::Unshare& command, Received&, Outputs&) {
  session.sharing().unshare(command.name);
  return CUDA_SUCCESS;
}

CUresult serve_tideShareEvent(Session& session, const command::ShareEvent& command, Received&, Outputs&) {
  const Events::Event* event = session.events().find(command.event);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return session.sharing().share_event(command.name, event->shared);
}

CUresult serve_tideOpenEvent(Session& session, const command::OpenEvent& command, Received& q, Outputs&) {
  std::shared_ptr<SharedEvent> opened = session.sharing().restored_event(command.event);
  const SharedName what = shared_name(command.owner_low, command.owner_high, command.owner_name);
  CUresult result = CUDA_SUCCESS;
  if (opened == nullptr) {
    result = or_again(session.sharing().open_event(what, &opened));
    if (result != CUDA_SUCCESS) return result;
    session.sharing().watch(opened);
  }
  result = session.events().adopt(command.event, q.header().context, std::move(opened));
  if (result == CUDA_SUCCESS) session.objects().add(ObjectKind::kEvent, command.event, q.header(), q.payload());
  return result;
}

CUresult serve_tideWatchEvent(Session& session, const command::WatchEvent& command, Received& q, Outputs& a) {
  const Events::Event* event = session.events().find(command.event);
  if (event == nullptr || event->shared == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto* answer = a.out<WatchAnswer>(1);
  const uint64_t last = event->shared->last();
  if (last == 0 || event->shared->done(last)) return CUDA_SUCCESS;
  session.events().watch(command.event, last, q.header().sequence);
  answer->pending = 1;
  answer->recorded = event->native && event->shared->recorder(last) == session.sharing().recorder();
  return CUDA_SUCCESS;
}

}  // namespace tide
