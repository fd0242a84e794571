#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "api/handshake/tables.h"

namespace tide::handshake {
namespace {

CUcontext context(uintptr_t n) { return reinterpret_cast<CUcontext>(0xC0D0000 + n); }
void* pointer(uintptr_t n) { return reinterpret_cast<void*>(n); }

thread_local CUcontext current;

struct Destroyed {
  CUcontext context;
  void* key;
  void* value;
};
std::vector<Destroyed> destroyed;

void on_destroy(CUcontext c, void* key, void* value) { destroyed.push_back({c, key, value}); }

class ContextStorage : public testing::Test {
 protected:
  void SetUp() override {
    Hooks hooks{};
    hooks.current_context = [](CUcontext* c) {
      *c = current;
      return CUDA_SUCCESS;
    };
    set_hooks(hooks);
    current = nullptr;
    destroyed.clear();
  }
};

TEST_F(ContextStorage, values_are_kept_by_context_and_key) {
  ASSERT_EQ(put_context_storage(context(1), pointer(7), pointer(100), nullptr), CUDA_SUCCESS);
  ASSERT_EQ(put_context_storage(context(2), pointer(7), pointer(200), nullptr), CUDA_SUCCESS);
  void* value = nullptr;
  EXPECT_EQ(get_context_storage(&value, context(1), pointer(7)), CUDA_SUCCESS);
  EXPECT_EQ(value, pointer(100));
  EXPECT_EQ(get_context_storage(&value, context(2), pointer(7)), CUDA_SUCCESS);
  EXPECT_EQ(value, pointer(200));
  EXPECT_EQ(get_context_storage(&value, context(2), pointer(8)), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(delete_context_storage(context(1), pointer(7)), CUDA_SUCCESS);
  EXPECT_EQ(get_context_storage(&value, context(1), pointer(7)), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(delete_context_storage(context(1), pointer(7)), CUDA_ERROR_INVALID_HANDLE);
  destroy_context_storage(context(2));
}

TEST_F(ContextStorage, a_null_context_means_the_current_one) {
  void* value = nullptr;
  EXPECT_EQ(get_context_storage(&value, nullptr, pointer(1)), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(put_context_storage(nullptr, pointer(1), pointer(2), nullptr), CUDA_ERROR_INVALID_CONTEXT);
  current = context(3);
  EXPECT_EQ(put_context_storage(nullptr, pointer(1), pointer(2), nullptr), CUDA_SUCCESS);
  EXPECT_EQ(get_context_storage(&value, context(3), pointer(1)), CUDA_SUCCESS);
  EXPECT_EQ(value, pointer(2));
  destroy_context_storage(context(3));
}

TEST_F(ContextStorage, destroying_a_context_runs_its_destructors_once_and_only_its) {
  put_context_storage(context(4), pointer(1), pointer(41), on_destroy);
  put_context_storage(context(4), pointer(2), pointer(42), on_destroy);
  put_context_storage(context(5), pointer(1), pointer(51), on_destroy);
  destroy_context_storage(context(4));
  ASSERT_EQ(destroyed.size(), 2u);
  for (const Destroyed& d : destroyed) {
    EXPECT_EQ(d.context, context(4));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(d.value), 40 + reinterpret_cast<uintptr_t>(d.key));
  }
  destroy_context_storage(context(4));
  EXPECT_EQ(destroyed.size(), 2u);
  void* value = nullptr;
  EXPECT_EQ(get_context_storage(&value, context(4), pointer(1)), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(get_context_storage(&value, context(5), pointer(1)), CUDA_SUCCESS);
  destroy_context_storage(context(5));
  EXPECT_EQ(destroyed.size(), 3u);
}

TEST_F(ContextStorage, readers_never_see_another_key_s_value_while_writers_work) {
  // Each value names its context and key, so a mixed-up read shows.
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<long> found{0};
  std::thread reader([&] {
    for (uintptr_t i = 0; !stop; ++i) {
      const uintptr_t c = i % 8, k = i % 5 + 1;
      void* value = nullptr;
      if (get_context_storage(&value, context(100 + c), pointer(k)) != CUDA_SUCCESS) continue;
      ++found;
      if (reinterpret_cast<uintptr_t>(value) != c * 10 + k) ++wrong;
    }
  });
  for (int round = 0; round < 2000; ++round) {
    for (uintptr_t c = 0; c < 8; ++c) {
      for (uintptr_t k = 1; k <= 5; ++k)
        put_context_storage(context(100 + c), pointer(k), pointer(c * 10 + k), nullptr);
    }
    for (uintptr_t c = 0; c < 8; ++c) {
      if ((round + c) % 2 == 0) destroy_context_storage(context(100 + c));
    }
  }
  while (found == 0) std::this_thread::yield();
  stop = true;
  reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(found, 0);
  for (uintptr_t c = 0; c < 8; ++c) destroy_context_storage(context(100 + c));
}

}  // namespace
}  // namespace tide::handshake
