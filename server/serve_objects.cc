// Commands that make and end things: contexts, streams, events, memory, libraries.

#include <cstring>
#include <string>

#include "api/library_info.h"
#include "api/payload.h"
#include "base/log.h"
#include "calls.h"
#include "serve.h"

namespace tide {
namespace {

constexpr uint32_t kLibraryPartBytes = 512u << 10;
constexpr uint64_t kGlobalNameMax = 65536;

void append(std::vector<std::byte>* to, const void* data, size_t bytes) {
  const auto* from = static_cast<const std::byte*>(data);
  to->insert(to->end(), from, from + bytes);
}

std::vector<std::byte> describe(int result, const Library* library, const std::string& message) {
  std::vector<std::byte> all;
  LibraryHeader header;
  header.result = result;
  if (library == nullptr) {
    header.message_bytes = uint32_t(message.size());
    append(&all, &header, sizeof(header));
    append(&all, message.data(), message.size());
    return all;
  }
  header.kernel_count = uint32_t(library->kernels.size());
  append(&all, &header, sizeof(header));
  for (const KernelEntry& kernel : library->kernels) {
    KernelHeader entry;
    entry.name_bytes = uint32_t(kernel.name.size());
    entry.param_count = uint32_t(kernel.params.size());
    entry.param_bytes = kernel.param_bytes;
    entry.max_threads_per_block = kernel.max_threads_per_block;
    append(&all, &entry, sizeof(entry));
    append(&all, kernel.name.data(), kernel.name.size());
    all.resize(align_up(all.size(), 8));
    for (const auto& [offset, bytes] : kernel.params) {
      const ParamEntry param{offset, bytes};
      append(&all, &param, sizeof(param));
    }
  }
  return all;
}

void send_library(Session& session, uint64_t sequence, const std::vector<std::byte>& all) {
  for (uint64_t at = 0; at < all.size(); at += kLibraryPartBytes) {
    const uint64_t bytes = std::min<uint64_t>(kLibraryPartBytes, all.size() - at);
    AnswerHeader header;
    header.kind = uint16_t(AnswerKind::kLibrary);
    header.flags = at + bytes == all.size() ? kLibraryLastPart : 0;
    header.sequence = sequence;
    header.offset = at;
    session.outbox().record(header, std::span(all).subspan(at, bytes));
  }
}

}  // namespace

CUresult serve_tideNull(Session&, const command::Null&, Received&, Outputs&) { return CUDA_SUCCESS; }

CUresult serve_tideEnd(Session& session, const command::End&, Received&, Outputs&) {
  session.end();
  return CUDA_SUCCESS;
}

CUresult serve_tideCreateContext(Session& session, const command::CreateContext& command, Received& q, Outputs&) {
  CUresult result =
      session.contexts().create(command.context, command.legacy_stream, command.flags, command.primary != 0);
  if (result != CUDA_SUCCESS) return result;
  result = session.streams().add_legacy(command.legacy_stream, command.context);
  if (result != CUDA_SUCCESS) {
    session.contexts().destroy(command.context);
    return result;
  }
  session.objects().add(ObjectKind::kContext, command.context, q.header(), q.payload());
  return CUDA_SUCCESS;
}

CUresult serve_tideDestroyContext(Session& session, const command::DestroyContext& command, Received&, Outputs&) {
  if (session.contexts().find(command.context) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (!session.streams().idle(command.context)) {
    session.settle();
    return kAgain;
  }
  session.contexts().use(command.context);
  session.graphs().forget_context(command.context);
  session.streams().forget_context(command.context);
  session.events().forget_context(command.context);
  session.arrays().forget_context(command.context);
  session.objects().end_context(command.context);
  return session.contexts().destroy(command.context);
}

CUresult serve_tideMapMemory(Session& session, const command::MapMemory& command, Received&, Outputs&) {
  const CUresult result = session.memory().map(command.address, command.bytes);
  if (result != CUDA_ERROR_OUT_OF_MEMORY || !session.memory().has_condemned()) return result;
  // What was unmapped before goes when the work that may use it is done; then there may be room.
  session.settle();
  return kAgain;
}

CUresult serve_tideUnmapMemory(Session& session, const command::UnmapMemory& command, Received& q, Outputs&) {
  return session.memory().unmap(command.address, command.bytes, q.header().sequence);
}

// Without an answer it is told, not asked.
CUresult serve_tideAskMemory(Session& session, const command::AskMemory& command, Received& q, Outputs& a) {
  const bool asks = (q.header().flags & kCommandAnswer) != 0;
  const CUresult result = session.memory().promise(command.bytes, asks);
  if (!asks) return CUDA_SUCCESS;
  if (result == CUDA_ERROR_NOT_READY) return kAgain;
  if (result == CUDA_SUCCESS) a.out<MemoryAnswer>(1)->left = session.memory().left();
  return result;
}

CUresult serve_tideStage(Session& session, const command::Stage& command, Received& q, Outputs&) {
  return session.libraries().stage(command.stage, command.total, command.offset, q.tail().data(), q.tail().size());
}

CUresult serve_tideStageKnown(Session& session, const command::StageKnown& command, Received&, Outputs&) {
  const uint64_t words[] = {command.sum0, command.sum1, command.sum2, command.sum3};
  Sha256 name;
  static_assert(sizeof(words) == sizeof(name));
  memcpy(name.data(), words, sizeof(words));
  return session.libraries().stage_known(command.stage, command.total, name);
}

CUresult serve_tideLoadLibrary(Session& session, const command::LoadLibrary& command, Received& q, Outputs&) {
  std::string message;
  CUresult result = CUDA_ERROR_INVALID_IMAGE;
  const Library* like = session.image_like();
  bool kept = true;
  ImageBytes image =
      session.replaying() && like != nullptr ? like->image : session.libraries().take_stage(command.stage, &kept);
  const bool here = image != nullptr;
  if (!here) {
    message = "the image was not sent completely";
  } else {
    result = session.libraries().load(command.library, std::move(image), like, &message);
  }
  const bool loaded = result == CUDA_SUCCESS;
  if (loaded) session.objects().add(ObjectKind::kLibrary, command.library, q.header(), q.payload());
  if (session.replaying()) {
    if (!loaded)
      log(LogLevel::kError, "library %llu: %s", static_cast<unsigned long long>(command.library), message.c_str());
    return result;
  }
  if (message.empty() && !loaded) message = error_text(session.driver(), result);
  const Library* library = loaded ? session.libraries().find(command.library) : nullptr;
  const int answer = here ? int(result) : kImageNotHere;
  send_library(session, q.header().sequence, describe(answer, library, message));
  if (loaded && !kept && session.has_far_client()) session.libraries().keep(library->image);
  return CUDA_SUCCESS;  // the answer says what became of it
}

CUresult serve_tideUnloadLibrary(Session& session, const command::UnloadLibrary& command, Received&, Outputs&) {
  if (session.libraries().find(command.library) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!session.streams().idle()) {
    session.settle();
    return kAgain;
  }
  session.objects().end_library(command.library);
  return session.libraries().unload(command.library);
}

CUresult serve_tideGlobal(Session& session, const command::Global& command, Received& q, Outputs& a) {
  const auto name = q.tail();
  if (name.empty() || name.size() > kGlobalNameMax) return CUDA_ERROR_INVALID_VALUE;
  GlobalEntry entry;
  const CUresult result = session.libraries().global(command.library, text_of(name), &entry);
  if (result != CUDA_SUCCESS) return result;
  auto* answer = a.out<GlobalAnswer>(1);
  answer->address = entry.address;
  answer->bytes = entry.bytes;
  answer->managed = entry.managed ? 1 : 0;
  return CUDA_SUCCESS;
}

CUresult serve_tideCreateStream(Session& session, const command::CreateStream& command, Received& q, Outputs&) {
  const CUresult result = session.streams().create(command.stream, q.header().context, command.flags, command.priority);
  if (result == CUDA_SUCCESS) session.objects().add(ObjectKind::kStream, command.stream, q.header(), q.payload());
  return result;
}

CUresult serve_tideDestroyStream(Session& session, const command::DestroyStream& command, Received&, Outputs&) {
  const CUresult result = session.streams().destroy(command.stream);
  if (result == CUDA_SUCCESS) session.objects().end(ObjectKind::kStream, command.stream);
  return result;
}

CUresult serve_tideCreateEvent(Session& session, const command::CreateEvent& command, Received& q, Outputs&) {
  auto restored = session.sharing().restored_event(command.event);
  const bool known = restored != nullptr;
  const CUresult result =
      session.events().create(command.event, q.header().context, command.flags, std::move(restored));
  const Events::Event* made = result == CUDA_SUCCESS ? session.events().find(command.event) : nullptr;
  if (made != nullptr && made->shared != nullptr && !known) {
    session.sharing().name_event(*made->shared);
    session.sharing().watch(made->shared);
  }
  if (result == CUDA_SUCCESS) session.objects().add(ObjectKind::kEvent, command.event, q.header(), q.payload());
  return result;
}

CUresult serve_tideDestroyEvent(Session& session, const command::DestroyEvent& command, Received&, Outputs&) {
  const CUresult result = session.events().destroy(command.event);
  if (result == CUDA_SUCCESS) session.objects().end(ObjectKind::kEvent, command.event);
  return result;
}

}  // namespace tide
