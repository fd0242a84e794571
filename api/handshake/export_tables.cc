// The private tables that cuGetExportTable hands out: what CUDA 13.0's libraries call in them and no more. A table that
// is not known is refused, because libraries get on without one, but not with one that answers wrongly.

#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "api/handshake/tables.h"
#include "base/log.h"

namespace tide::handshake {
namespace {

Hooks g_hooks;

using Slot = const void*;

template <typename Function>
Slot slot(Function* function) {
  return reinterpret_cast<Slot>(function);
}

CUresult primary_context(CUcontext* context, CUdevice device) { return g_hooks.primary_context(context, device); }

CUresult current_context(CUcontext* context) { return g_hooks.current_context(context); }

// Runtimes before CUDA 12 load what a program registered by these three and not by cuLibraryLoadData. The last three
// parameters were only seen empty.
CUresult load_wrapper(CUmodule* module, const void* wrapper) { return g_hooks.load_fat_binary(module, wrapper); }

CUresult load_wrapper_with(CUmodule* module, const void* wrapper, void* first, void* second, uint32_t count) {
  if (first != nullptr || second != nullptr || count != 0) return CUDA_ERROR_NOT_SUPPORTED;
  return load_wrapper(module, wrapper);
}

CUresult load_header_with(const void* header, CUmodule* module, void* first, void* second, uint32_t count) {
  return load_wrapper_with(module, header, first, second, count);
}

// Called after each of those loads, by the runtime that then goes on whatever the answer.
CUresult loading_ended(size_t) { return CUDA_SUCCESS; }

// The runtime of CUDA 13.5 calls this before it begins, and hands an error to the program. We have no compiler to load.
CUresult load_compilers() { return CUDA_SUCCESS; }

// Flags by callback number that a profiler would set. The runtime reads them without looking at the size it is given,
// so both are far larger than what CUDA 13.0 indexes (523 words and 16 bytes).
uint32_t g_runtime_callbacks[16 * 1024];
uint8_t g_runtime_state[4096];

void runtime_callbacks(void** flags, size_t* bytes) {
  *flags = g_runtime_callbacks;
  *bytes = sizeof(g_runtime_callbacks);
}

void runtime_state(void** state, size_t* bytes) {
  *state = g_runtime_state;
  *bytes = sizeof(g_runtime_state);
}

CUresult context_check(CUcontext, uint32_t* flags, const void** detail) {
  if (flags != nullptr) *flags = 0;
  if (detail != nullptr) *detail = nullptr;
  return CUDA_SUCCESS;
}

uint32_t no_check_pending() { return 0; }

CUresult context_id(CUcontext context, unsigned long long* id) { return g_hooks.context_id(context, id); }

// The libraries pass the object on to stream_id() and never look into it: the handle itself will do.
CUresult stream_object(CUcontext, CUstream stream, CUstream* object, int per_thread) {
  if (object == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (stream == nullptr) stream = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
  *object = stream;
  return CUDA_SUCCESS;
}

CUresult stream_id(CUcontext context, CUstream object, unsigned long long* id) {
  return g_hooks.stream_id(context, object, id);
}

// Tells a module's functions, one by one; cuFFT takes its kernels from here. Not a CUresult: 0 is a failure.
int tell_functions(CUcontext, CUmodule module, void (*tell)(void* user, CUfunction function, void*, void*),
                   void* user) {
  unsigned count = 0;
  if (g_hooks.function_count == nullptr || g_hooks.function_count(&count, module) != CUDA_SUCCESS) return 0;
  std::vector<CUfunction> functions(count);
  if (count != 0 && g_hooks.list_functions(functions.data(), count, module) != CUDA_SUCCESS) return 0;
  for (const CUfunction function : functions) tell(user, function, nullptr, nullptr);
  return 1;
}

// cuBLASLt calls its slot with two values already zeroed and takes an error for "nothing to say", but reads the table
// without asking if it exists.
CUresult nothing_to_say() { return CUDA_ERROR_NOT_SUPPORTED; }

// A slot that no library was seen to call.
template <char kTable, size_t kSlot>
CUresult refused_slot() {
  static std::atomic<bool> logged;
  if (!logged.exchange(true)) {
    log(LogLevel::kWarning, "private driver table %c: slot %zu is not served", kTable, kSlot);
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

template <char kTable, size_t... kSlots>
void refuse_all(Slot* slots, std::index_sequence<kSlots...>) {
  ((slots[kSlots] = slot(refused_slot<kTable, kSlots>)), ...);
}

template <char kTable, size_t kCount>
void begin_table(Slot (&slots)[kCount]) {
  refuse_all<kTable>(slots, std::make_index_sequence<kCount>());
  slots[0] = reinterpret_cast<Slot>(sizeof(slots));
}

Slot g_cudart[13];
Slot g_runtime_hooks[7];
Slot g_tools_tls[4];
Slot g_storage[4];  // the one table without a size word
Slot g_context_checks[4];
Slot g_integrity[3];
Slot g_tools_context[95];
Slot g_tools_module[16];
Slot g_values[16];

void fill_tables() {
  begin_table<'c'>(g_cudart);
  g_cudart[2] = slot(primary_context);
  g_cudart[1] = slot(load_wrapper);
  g_cudart[6] = slot(load_wrapper_with);
  g_cudart[7] = slot(loading_ended);
  g_cudart[8] = slot(load_header_with);
  g_cudart[12] = slot(load_compilers);
  begin_table<'r'>(g_runtime_hooks);
  g_runtime_hooks[2] = slot(runtime_callbacks);
  g_runtime_hooks[6] = slot(runtime_state);
  begin_table<'t'>(g_tools_tls);
  g_tools_tls[2] = slot(current_context);
  begin_table<'s'>(g_storage);
  g_storage[0] = slot(put_context_storage);
  g_storage[1] = slot(delete_context_storage);
  g_storage[2] = slot(get_context_storage);
  begin_table<'k'>(g_context_checks);
  g_context_checks[2] = slot(context_check);
  g_context_checks[3] = slot(no_check_pending);
  begin_table<'i'>(g_integrity);
  g_integrity[1] = slot(integrity_check);
  begin_table<'x'>(g_tools_context);
  g_tools_context[4] = slot(context_id);
  g_tools_context[39] = slot(stream_id);
  g_tools_context[51] = slot(stream_object);
  begin_table<'m'>(g_tools_module);
  g_tools_module[7] = slot(tell_functions);
  begin_table<'v'>(g_values);
  g_values[4] = slot(nothing_to_say);
}

struct Uuid {
  uint8_t bytes[16];
  bool operator==(const Uuid&) const = default;
};

struct Served {
  Uuid id;
  const Slot* table;
};

constexpr Served kServed[] = {
    {{0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9}, g_cudart},
    {{0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74, 0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a, 0x66}, g_runtime_hooks},
    {{0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47, 0x82, 0x98, 0xf6, 0xe7, 0x8a, 0x3a, 0xec, 0xdc}, g_tools_tls},
    {{0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11, 0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95, 0x93}, g_storage},
    {{0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43, 0x92, 0xf6, 0xbb, 0xd5, 0x00, 0x6d, 0xfa, 0x7e},
     g_context_checks},
    {{0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b, 0x8d, 0x34, 0xba, 0x12, 0x3c, 0x66, 0xe1, 0xf2}, g_integrity},
    {{0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48, 0x8c, 0xa6, 0x41, 0xff, 0x73, 0x24, 0xc8, 0xf2}, g_tools_context},
    {{0x6e, 0x16, 0x3f, 0xbe, 0xb9, 0x58, 0x44, 0x4d, 0x83, 0x5c, 0xe1, 0x82, 0xaf, 0xf1, 0x99, 0x1e}, g_tools_module},
    {{0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca}, g_values},
};

// Refused on purpose and not worth a line: the runtime and NVRTC ask for these in every process and go on without.
constexpr Uuid kExpectedRefusals[] = {
    {0xf8, 0xcf, 0xf9, 0x51, 0x21, 0x46, 0x8b, 0x4e, 0xb9, 0xe2, 0xfb, 0x46, 0x9e, 0x7c, 0x0d, 0xd9},
    {0xda, 0x91, 0x51, 0xd3, 0x3a, 0xe6, 0xcc, 0x41, 0xa5, 0xc0, 0x4f, 0x26, 0xd5, 0x33, 0xe3, 0x28},
};

constexpr size_t kLoggedMax = 64;  // some 20 tables are known to be asked for; past this, a refusal is silent
std::mutex g_logged_mu;
Uuid g_logged[kLoggedMax];  // guarded by g_logged_mu
size_t g_logged_count = 0;  // guarded by g_logged_mu

bool first_refusal(const Uuid& id) {
  const std::lock_guard lock(g_logged_mu);
  for (size_t i = 0; i < g_logged_count; ++i) {
    if (g_logged[i] == id) return false;
  }
  if (g_logged_count == kLoggedMax) return false;
  g_logged[g_logged_count++] = id;
  return true;
}

void log_refusal(const Uuid& id) {
  for (const Uuid& expected : kExpectedRefusals) {
    if (expected == id) return;
  }
  if (!first_refusal(id)) return;
  char text[33];
  for (size_t i = 0; i < sizeof(id.bytes); ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    text[2 * i] = kDigits[id.bytes[i] >> 4];
    text[2 * i + 1] = kDigits[id.bytes[i] & 15];
  }
  text[32] = 0;
  log(LogLevel::kWarning, "a library asked for the private driver table %s, which is not served", text);
}

}  // namespace

void set_hooks(const Hooks& hooks) { g_hooks = hooks; }

const Hooks& hooks() { return g_hooks; }

const void* cudart_interface_table() { return g_cudart; }

const void* integrity_table() { return g_integrity; }

CUresult get_export_table(const void** table, const CUuuid* id) {
  if (table == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  static std::once_flag filled;
  std::call_once(filled, fill_tables);
  Uuid wanted;
  static_assert(sizeof(wanted) == sizeof(*id));
  std::memcpy(&wanted, id, sizeof(wanted));
  for (const Served& served : kServed) {
    if (served.id == wanted) {
      *table = served.table;
      return CUDA_SUCCESS;
    }
  }
  *table = nullptr;
  log_refusal(wanted);
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace tide::handshake
