#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "api/handshake/tables.h"

namespace tide::handshake {
namespace {

CUuuid uuid(const char* text) {
  CUuuid id{};
  int n = 0;
  for (; *text != 0; ++text) {
    if (*text == '-') continue;
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    id.bytes[n++] = static_cast<char>(digit(text[0]) * 16 + digit(text[1]));
    ++text;
  }
  return id;
}

const void* const* table(const char* id_text) {
  const CUuuid id = uuid(id_text);
  const void* found = nullptr;
  EXPECT_EQ(get_export_table(&found, &id), CUDA_SUCCESS) << id_text;
  return static_cast<const void* const*>(found);
}

template <typename Function>
Function* call(const void* slot) {
  return reinterpret_cast<Function*>(const_cast<void*>(slot));
}

constexpr const char* kCudart = "6bd5fb6c-5bf4-e74a-8987-d93912fd9df9";
constexpr const char* kIntegrity = "d4082055-bde6-704b-8d34-ba123c66e1f2";

int bus = 1;

class ExportTables : public testing::Test {
 protected:
  void SetUp() override {
    Hooks hooks{};
    hooks.primary_context = [](CUcontext* c, CUdevice device) {
      *c = reinterpret_cast<CUcontext>(uintptr_t(0x1000) + uintptr_t(device));
      return CUDA_SUCCESS;
    };
    hooks.current_context = [](CUcontext* c) {
      *c = reinterpret_cast<CUcontext>(uintptr_t(0x2000));
      return CUDA_SUCCESS;
    };
    hooks.context_id = [](CUcontext c, unsigned long long* id) {
      *id = reinterpret_cast<uintptr_t>(c) + 1;
      return CUDA_SUCCESS;
    };
    hooks.stream_id = [](CUcontext, CUstream s, unsigned long long* id) {
      *id = reinterpret_cast<uintptr_t>(s);
      return CUDA_SUCCESS;
    };
    hooks.driver_version = [] { return 13000; };
    hooks.device_count = [] { return 1; };
    hooks.load_fat_binary = [](CUmodule* module, const void* image) {
      *module = static_cast<CUmodule>(const_cast<void*>(image));
      return CUDA_SUCCESS;
    };
    hooks.function_count = [](unsigned* count, CUmodule module) {
      *count = 2;
      return module == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
    };
    hooks.list_functions = [](CUfunction* functions, unsigned count, CUmodule) {
      for (unsigned i = 0; i < count; ++i) functions[i] = reinterpret_cast<CUfunction>(uintptr_t{100} + i);
      return CUDA_SUCCESS;
    };
    hooks.device_identity = [](int, uint8_t id[16], int32_t pci[3]) {
      std::memset(id, 7, 16);
      pci[0] = 0, pci[1] = bus, pci[2] = 0;
    };
    set_hooks(hooks);
    bus = 1;
  }
};

TEST_F(ExportTables, sizes_stand_in_front_and_no_slot_is_null) {
  const struct {
    const char* id;
    size_t words;
  } kTables[] = {{kCudart, 13},
                 {"a094798c-2e74-2e74-93f2-0800200c0a66", 7},
                 {"42d85a81-23f6-cb47-8298-f6e78a3aecdc", 4},
                 {"263e8860-7cd2-6143-92f6-bbd5006dfa7e", 4},
                 {kIntegrity, 3},
                 {"21318c60-9714-3248-8ca6-41ff7324c8f2", 95}};
  for (const auto& expected : kTables) {
    const void* const* slots = table(expected.id);
    ASSERT_NE(slots, nullptr);
    EXPECT_EQ(reinterpret_cast<size_t>(slots[0]), expected.words * 8) << expected.id;
    for (size_t i = 1; i < expected.words; ++i) EXPECT_NE(slots[i], nullptr) << expected.id << " slot " << i;
  }
}

TEST_F(ExportTables, runtimes_before_cuda_12_load_fat_binaries) {
  const void* const* slots = table(kCudart);
  int image = 0;
  CUmodule module = nullptr;
  EXPECT_EQ(call<CUresult(CUmodule*, const void*)>(slots[1])(&module, &image), CUDA_SUCCESS);
  EXPECT_EQ(static_cast<void*>(module), &image);
  module = nullptr;
  using Load = CUresult(CUmodule*, const void*, void*, void*, uint32_t);
  EXPECT_EQ(call<Load>(slots[6])(&module, &image, nullptr, nullptr, 0), CUDA_SUCCESS);
  EXPECT_EQ(static_cast<void*>(module), &image);
  EXPECT_EQ(call<Load>(slots[6])(&module, &image, nullptr, &image, 1), CUDA_ERROR_NOT_SUPPORTED);
  module = nullptr;
  using LoadHeader = CUresult(const void*, CUmodule*, void*, void*, uint32_t);
  EXPECT_EQ(call<LoadHeader>(slots[8])(&image, &module, nullptr, nullptr, 0), CUDA_SUCCESS);
  EXPECT_EQ(static_cast<void*>(module), &image);
}

TEST_F(ExportTables, the_runtime_of_cuda_13_5_may_begin) {
  EXPECT_EQ(call<CUresult()>(table(kCudart)[12])(), CUDA_SUCCESS);
}

TEST_F(ExportTables, slots_answer_from_the_hooks) {
  CUcontext context = nullptr;
  EXPECT_EQ(call<CUresult(CUcontext*, CUdevice)>(table(kCudart)[2])(&context, 3), CUDA_SUCCESS);
  EXPECT_EQ(context, reinterpret_cast<CUcontext>(uintptr_t(0x1003)));
  EXPECT_EQ(call<CUresult(CUcontext*)>(table("42d85a81-23f6-cb47-8298-f6e78a3aecdc")[2])(&context), CUDA_SUCCESS);
  EXPECT_EQ(context, reinterpret_cast<CUcontext>(uintptr_t(0x2000)));
  const void* const* tools = table("21318c60-9714-3248-8ca6-41ff7324c8f2");
  unsigned long long id = 0;
  EXPECT_EQ(call<CUresult(CUcontext, unsigned long long*)>(tools[4])(context, &id), CUDA_SUCCESS);
  EXPECT_EQ(id, 0x2001u);
  CUstream object = nullptr;
  EXPECT_EQ(call<CUresult(CUcontext, CUstream, CUstream*, int)>(tools[51])(context, nullptr, &object, 1), CUDA_SUCCESS);
  EXPECT_EQ(call<CUresult(CUcontext, CUstream, unsigned long long*)>(tools[39])(context, object, &id), CUDA_SUCCESS);
  EXPECT_EQ(id, 2u);
}

TEST_F(ExportTables, callback_flags_are_zero_and_large_enough) {
  const void* const* slots = table("a094798c-2e74-2e74-93f2-0800200c0a66");
  for (const auto& [slot, least] : {std::pair<int, size_t>{2, 523 * 4}, {6, 16}}) {
    void* data = nullptr;
    size_t bytes = 0;
    call<void(void**, size_t*)>(slots[slot])(&data, &bytes);
    ASSERT_GE(bytes, least);
    EXPECT_EQ(std::string(static_cast<char*>(data), bytes), std::string(bytes, '\0'));
  }
}

TEST_F(ExportTables, slots_that_must_fail_do) {
  uint64_t a = 0, b = 0;
  EXPECT_NE(call<CUresult(uint64_t*, uint64_t*)>(table("1734dc26-800d-4745-8726-c0f1e7dd8bca")[4])(&a, &b),
            CUDA_SUCCESS);
  EXPECT_EQ(a | b, 0u);
  EXPECT_EQ(call<int()>(table(kCudart)[3])(), CUDA_ERROR_NOT_SUPPORTED);
}

TEST_F(ExportTables, a_module_s_functions_are_told) {
  using Tell = void (*)(void*, CUfunction, void*, void*);
  const auto tell_functions =
      call<int(CUcontext, CUmodule, Tell, void*)>(table("6e163fbe-b958-444d-835c-e182aff1991e")[7]);
  std::vector<CUfunction> told;
  const Tell tell = [](void* to, CUfunction function, void*, void*) {
    static_cast<std::vector<CUfunction>*>(to)->push_back(function);
  };
  EXPECT_NE(tell_functions(nullptr, reinterpret_cast<CUmodule>(uintptr_t{1}), tell, &told), 0);
  EXPECT_EQ(told, (std::vector<CUfunction>{reinterpret_cast<CUfunction>(uintptr_t{100}),
                                           reinterpret_cast<CUfunction>(uintptr_t{101})}));
  EXPECT_EQ(tell_functions(nullptr, nullptr, tell, &told), 0);
}

TEST_F(ExportTables, unknown_tables_are_refused_with_null) {
  for (const char* text : {"f8cff951-2146-8b4e-b9e2-fb469e7c0dd9", "2c8e0ad8-0710-ab4e-90dd-54719fe5f74b",
                           "00000000-0000-0000-0000-000000000000"}) {
    const CUuuid id = uuid(text);
    const void* found = &id;
    EXPECT_NE(get_export_table(&found, &id), CUDA_SUCCESS) << text;
    EXPECT_EQ(found, nullptr) << text;
  }
  const CUuuid id = uuid(kCudart);
  EXPECT_EQ(get_export_table(nullptr, &id), CUDA_ERROR_INVALID_VALUE);
}

#if TIDE_INTEGRITY
TEST_F(ExportTables, the_integrity_answer_depends_on_what_is_asked_of_whom) {
  auto* ask = call<CUresult(uint32_t, uint64_t, uint64_t*)>(table(kIntegrity)[1]);
  uint64_t first[2] = {}, again[2] = {}, later[2] = {}, other[2] = {};
  ASSERT_EQ(ask(13002, 1'700'000'000, first), CUDA_SUCCESS);
  ASSERT_EQ(ask(13002, 1'700'000'000, again), CUDA_SUCCESS);
  ASSERT_EQ(ask(13002, 1'700'000'001, later), CUDA_SUCCESS);
  bus = 2;
  ASSERT_EQ(ask(13002, 1'700'000'000, other), CUDA_SUCCESS);
  EXPECT_EQ(std::memcmp(first, again, 16), 0);
  EXPECT_NE(std::memcmp(first, later, 16), 0);
  EXPECT_NE(std::memcmp(first, other, 16), 0);
  ASSERT_EQ(ask(13000, 1, first), CUDA_SUCCESS);
  ASSERT_EQ(ask(13000, 2, again), CUDA_SUCCESS);
  ASSERT_EQ(ask(13001, 2, other), CUDA_SUCCESS);
  EXPECT_EQ(std::memcmp(first, again, 16), 0);
  EXPECT_NE(std::memcmp(first, other, 16), 0);
}
#else
TEST_F(ExportTables, without_the_build_option_the_integrity_slot_fails) {
  uint64_t answer[2] = {};
  EXPECT_NE(call<CUresult(uint32_t, uint64_t, uint64_t*)>(table(kIntegrity)[1])(13002, 1, answer), CUDA_SUCCESS);
}
#endif

}  // namespace
}  // namespace tide::handshake
