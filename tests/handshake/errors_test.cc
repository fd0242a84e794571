#include <gtest/gtest.h>

#include "api/handshake/handshake.h"

namespace tide::handshake {
namespace {

TEST(Errors, known_codes_have_the_header_s_name_and_a_text) {
  EXPECT_STREQ(error_name(CUDA_SUCCESS), "CUDA_SUCCESS");
  EXPECT_STREQ(error_text(CUDA_SUCCESS), "no error");
  EXPECT_STREQ(error_name(CUDA_ERROR_ILLEGAL_ADDRESS), "CUDA_ERROR_ILLEGAL_ADDRESS");
  EXPECT_STREQ(error_text(CUDA_ERROR_OUT_OF_MEMORY), "out of memory");
  EXPECT_STREQ(error_name(CUDA_ERROR_UNKNOWN), "CUDA_ERROR_UNKNOWN");
}

TEST(Errors, unknown_codes_have_neither) {
  EXPECT_EQ(error_name(static_cast<CUresult>(12345)), nullptr);
  EXPECT_EQ(error_text(static_cast<CUresult>(-1)), nullptr);
}

}  // namespace
}  // namespace tide::handshake
