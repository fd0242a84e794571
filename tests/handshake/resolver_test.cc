#include <gtest/gtest.h>

#include "api/handshake/handshake.h"

namespace tide::handshake {
namespace {

int plain_old, plain_new, per_thread_old, per_thread_new, only_plain, refusal, last;

const Entry kTable[] = {
    {"cuAlpha", 2000, false, &only_plain, &refusal},    {"cuBeta", 2000, false, &plain_old, &refusal},
    {"cuBeta", 7000, true, &per_thread_old, &refusal},  {"cuBeta", 11040, false, &plain_new, &refusal},
    {"cuBeta", 11040, true, &per_thread_new, &refusal}, {"cuGamma", 3020, false, &only_plain, &refusal},
    {"cuGamma", 12000, false, &refusal, &refusal},      {"cuOmega", 12050, false, &last, &refusal},
};

struct Answer {
  CUresult result;
  void* function;
  CUdriverProcAddressQueryResult status;
};

Answer ask(const char* name, int version, cuuint64_t flags = CU_GET_PROC_ADDRESS_DEFAULT) {
  Answer answer{CUDA_ERROR_UNKNOWN, &refusal, CU_GET_PROC_ADDRESS_SUCCESS};
  answer.result =
      get_proc_address(kTable, std::size(kTable), 13000, name, &answer.function, version, flags, &answer.status);
  return answer;
}

TEST(Resolver, picks_the_largest_version_that_is_not_above_the_request) {
  EXPECT_EQ(ask("cuBeta", 2000).function, &plain_old);
  EXPECT_EQ(ask("cuBeta", 11030).function, &plain_old);
  EXPECT_EQ(ask("cuBeta", 11040).function, &plain_new);
  EXPECT_EQ(ask("cuBeta", 13000).function, &plain_new);
}

TEST(Resolver, per_thread_requests_prefer_the_per_thread_form) {
  EXPECT_EQ(ask("cuBeta", 7000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM).function, &per_thread_old);
  EXPECT_EQ(ask("cuBeta", 13000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM).function, &per_thread_new);
  EXPECT_EQ(ask("cuBeta", 13000, CU_GET_PROC_ADDRESS_LEGACY_STREAM).function, &plain_new);
}

TEST(Resolver, per_thread_requests_fall_back_to_the_plain_form) {
  EXPECT_EQ(ask("cuAlpha", 13000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM).function, &only_plain);
  EXPECT_EQ(ask("cuBeta", 3000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM).function, &plain_old);
}

TEST(Resolver, names_that_do_not_exist_succeed_with_null) {
  for (const char* name : {"cuAlph", "cuAlphaa", "cuZeta", "aa", "zz"}) {
    const Answer answer = ask(name, 13000);
    EXPECT_EQ(answer.result, CUDA_SUCCESS) << name;
    EXPECT_EQ(answer.function, nullptr) << name;
    EXPECT_EQ(answer.status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND) << name;
  }
}

TEST(Resolver, names_newer_than_the_request_say_so) {
  const Answer answer = ask("cuOmega", 12000);
  EXPECT_EQ(answer.result, CUDA_SUCCESS);
  EXPECT_EQ(answer.function, nullptr);
  EXPECT_EQ(answer.status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
  EXPECT_EQ(ask("cuOmega", 12050).function, &last);
}

TEST(Resolver, refused_functions_are_null_and_never_an_older_form) {
  const Answer answer = ask("cuGamma", 13000);
  EXPECT_EQ(answer.result, CUDA_SUCCESS);
  EXPECT_EQ(answer.function, nullptr);
  EXPECT_EQ(answer.status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  EXPECT_EQ(ask("cuGamma", 4000).function, &only_plain);
}

TEST(Resolver, bad_requests_are_invalid) {
  EXPECT_EQ(ask("cuBeta", 13010).result, CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(ask("", 0).result, CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(ask(nullptr, 13000).result, CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(ask("cuBeta", 13000, 3).result, CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(ask("cuBeta", 13000, 4).result, CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(get_proc_address(kTable, 1, 13000, "cuAlpha", nullptr, 13000, 0, nullptr), CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace tide::handshake
